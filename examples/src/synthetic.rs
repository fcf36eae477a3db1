//! A stack of nuclei-like blobs, the same every time, for when there is no file.

use crate::stack::{Plane, Stack};

const SIDE: u32 = 96;
const DEPTH: u32 = 24;
const NUCLEI: u32 = 42;
/// What a camera shows in the dark.
const DARK: f64 = 96.0;

/// An ellipsoid with a soft edge.
struct Nucleus {
    centre: [f64; 3],
    radii: [f64; 3],
    brightness: f64,
}

/// Makes the stack: 24 planes of 96 x 96 pixels, 16 bits.
#[must_use]
pub fn stack() -> Stack {
    let mut random = Random(1);
    let side = f64::from(SIDE);
    let nuclei: Vec<_> = (0..NUCLEI)
        .map(|_| Nucleus {
            centre: [random.between(0.0, side), random.between(0.0, side), random.between(0.0, f64::from(DEPTH))],
            radii: [random.between(4.5, 9.0), random.between(4.5, 9.0), random.between(2.5, 5.0)],
            brightness: random.between(400.0, 900.0),
        })
        .collect();
    let planes = (0..DEPTH).map(|z| {
        let pixels = (0..SIDE * SIDE).map(|at| {
            let place = [f64::from(at % SIDE), f64::from(at / SIDE), f64::from(z)];
            let light: f64 = nuclei.iter().map(|nucleus| nucleus.light_at(place)).sum();
            (DARK + light + random.between(0.0, 30.0)) as u16
        });
        Plane::new(SIDE, SIDE, pixels.collect())
    });
    let planes: Option<Vec<_>> = planes.collect();
    match planes.and_then(Stack::new) {
        Some(stack) => stack,
        None => unreachable!("every plane has SIDE * SIDE pixels"),
    }
}

impl Nucleus {
    fn light_at(&self, place: [f64; 3]) -> f64 {
        let far: f64 = (0..3).map(|axis| ((place[axis] - self.centre[axis]) / self.radii[axis]).powi(2)).sum();
        self.brightness * (-far * far).exp()
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn between(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        low + (high - low) * ((bits >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_every_time_and_not_flat() {
        let made = stack();
        assert_eq!(made, stack());
        assert_eq!(made.planes().len(), DEPTH as usize);
        for plane in made.planes() {
            let brightest = plane.pixels().iter().max().copied().unwrap_or(0);
            assert!(brightest > 400, "no nucleus in a plane: brightest {brightest}");
        }
    }
}
