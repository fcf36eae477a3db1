//! Kernels of floating point. Owns: their inputs and what is computed, written as somebody would who wants the compiler to make it fast.
//! The compiler does not know the sizes: it rarely does.

use std::hint::black_box;

use super::{Prepared, checksum, fraction, random};

/// Of two square matrices of f64.
pub(super) fn matrix_product(seed: u64) -> Prepared {
    let n = black_box(160);
    let mut random = random(seed);
    let mut matrix = || -> Vec<f64> { (0..n * n).map(|_| fraction(random()) - 0.5).collect() };
    let (a, b) = (matrix(), matrix());
    let mut product = vec![0.0; n * n];
    Box::new(move || {
        product.fill(0.0);
        for (row, out) in a.chunks_exact(n).zip(product.chunks_exact_mut(n)) {
            for (&factor, other) in row.iter().zip(b.chunks_exact(n)) {
                out.iter_mut().zip(other).for_each(|(out, &other)| *out += factor * other);
            }
        }
        checksum(product.iter().step_by(61).map(|value| value.to_bits()))
    })
}

#[derive(Clone, Copy)]
struct Complex {
    re: f64,
    im: f64,
}

impl Complex {
    fn times(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }

    fn plus(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }

    fn minus(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

/// Fast, complex, in place; by halves.
pub(super) fn fourier_transform(seed: u64) -> Prepared {
    let bits = black_box(12);
    let n = 1 << bits;
    let mut random = random(seed);
    let signal: Vec<_> = (0..n).map(|_| Complex { re: fraction(random()), im: fraction(random()) }).collect();
    let roots = roots(bits);
    let mut spectrum = signal.clone();
    Box::new(move || {
        for (index, &value) in signal.iter().enumerate() {
            spectrum[index.reverse_bits() >> (usize::BITS - bits)] = value;
        }
        let mut half = 1;
        while half < n {
            let step = n / 2 / half;
            for block in spectrum.chunks_exact_mut(half * 2) {
                let (low, high) = block.split_at_mut(half);
                for ((low, high), &root) in low.iter_mut().zip(high).zip(roots.iter().step_by(step)) {
                    let turned = high.times(root);
                    (*low, *high) = (low.plus(turned), low.minus(turned));
                }
            }
            half *= 2;
        }
        checksum(spectrum.iter().step_by(31).map(|value| value.re.to_bits() ^ value.im.to_bits().rotate_left(32)))
    })
}

/// The first half of the roots of 1 of order `2^bits`, clockwise, by halving angles: sines are not the same everywhere.
fn roots(bits: u32) -> Vec<Complex> {
    let mut roots = vec![Complex { re: 1.0, im: 0.0 }];
    let mut next = Complex { re: -1.0, im: 0.0 };
    let mut angles = Vec::new();
    for _ in 1..bits {
        next = Complex { re: ((1.0 + next.re) / 2.0).sqrt(), im: -((1.0 - next.re) / 2.0).sqrt() };
        angles.push(next);
    }
    // The finest angle doubles the table first.
    for angle in angles.into_iter().rev() {
        let turned: Vec<_> = roots.iter().map(|root| root.times(angle)).collect();
        roots.extend(turned);
    }
    roots
}

/// Of a grey image of f32, seven taps along rows, then along columns.
pub(super) fn gaussian_filter(seed: u64) -> Prepared {
    /// Binomial coefficients: as good as a bell, and exact.
    const TAPS: [f32; 7] = [1.0 / 64.0, 6.0 / 64.0, 15.0 / 64.0, 20.0 / 64.0, 15.0 / 64.0, 6.0 / 64.0, 1.0 / 64.0];
    const REACH: usize = TAPS.len() / 2;
    let side = black_box(512);
    let mut random = random(seed);
    let image: Vec<f32> = (0..side * side).map(|_| fraction(random()) as f32).collect();
    let mut rows = vec![0.0_f32; side * side];
    let mut filtered = vec![0.0_f32; side * side];
    Box::new(move || {
        for (from, to) in image.chunks_exact(side).zip(rows.chunks_exact_mut(side)) {
            for (window, to) in from.windows(TAPS.len()).zip(&mut to[REACH..]) {
                *to = window.iter().zip(TAPS).map(|(&value, tap)| value * tap).sum();
            }
        }
        for (window, to) in rows.windows(side * TAPS.len()).step_by(side).zip(filtered.chunks_exact_mut(side).skip(REACH)) {
            to.fill(0.0);
            for (from, tap) in window.chunks_exact(side).zip(TAPS) {
                to.iter_mut().zip(from).for_each(|(to, &value)| *to += value * tap);
            }
        }
        checksum(filtered.iter().step_by(251).map(|value| u64::from(value.to_bits())))
    })
}

/// How soon points of a picture go far.
pub(super) fn mandelbrot(seed: u64) -> Prepared {
    const SIDE: u32 = 36;
    const ITERATIONS: u32 = 500;
    let shift = fraction(random(seed)()) * 1e-3;
    Box::new(move || {
        let place = |pixel: u32| f64::from(pixel) * (2.4 / f64::from(SIDE)) + black_box(shift);
        let times = (0..SIDE * SIDE).map(|pixel| {
            let (re, im) = (place(pixel % SIDE) - 1.8, place(pixel / SIDE) - 1.2);
            let (mut x, mut y) = (0.0, 0.0);
            let mut time = 0;
            while time < ITERATIONS && x * x + y * y < 4.0 {
                (x, y) = (x * x - y * y + re, 2.0 * x * y + im);
                time += 1;
            }
            u64::from(time)
        });
        checksum(times)
    })
}

#[derive(Clone, Copy)]
struct Body {
    place: [f64; 3],
    speed: [f64; 3],
    mass: f64,
}

/// Five bodies that attract one another.
pub(super) fn bodies(seed: u64) -> Prepared {
    const STEPS: usize = 20_000;
    const STEP: f64 = 1e-4;
    let mut random = random(seed);
    let mut triple = |scale: f64| [(); 3].map(|()| (fraction(random()) - 0.5) * scale);
    let mut bodies = [(); 5].map(|()| Body { place: triple(60.0), speed: triple(1.0), mass: 1.0 + triple(1.0)[0] });
    Box::new(move || {
        for _ in 0..STEPS {
            advance(&mut bodies, STEP);
        }
        checksum(bodies.iter().flat_map(|body| body.place).map(f64::to_bits))
    })
}

fn advance(bodies: &mut [Body; 5], step: f64) {
    for first in 0..bodies.len() {
        let (head, tail) = bodies.split_at_mut(first + 1);
        let one = &mut head[first];
        for other in tail {
            let apart: [f64; 3] = std::array::from_fn(|axis| one.place[axis] - other.place[axis]);
            let square = apart[0] * apart[0] + apart[1] * apart[1] + apart[2] * apart[2];
            let pull = step / (square * square.sqrt());
            for (axis, apart) in apart.into_iter().enumerate() {
                one.speed[axis] -= apart * other.mass * pull;
                other.speed[axis] += apart * one.mass * pull;
            }
        }
    }
    for body in bodies {
        for axis in 0..3 {
            body.place[axis] += step * body.speed[axis];
        }
    }
}
