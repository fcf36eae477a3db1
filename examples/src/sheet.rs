//! A contact sheet: the labels of all planes in one picture, a colour a region.

use std::path::Path;

use crate::{
    nuclei::Found,
    picture::{Picture, PictureError},
};

/// A plane is enlarged by a whole number to at least about this many pixels.
const TILE_WIDTH: usize = 128;
/// Pixels between planes, before enlargement.
const GAP: usize = 2;
const PAPER: [u8; 3] = [255, 255, 255];
const BACKGROUND: [u8; 3] = [18, 18, 24];

/// Writes the labels of all planes, each `width` pixels wide, as a PNG.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, width: usize, planes: &[Found]) -> Result<(), PictureError> {
    sheet(width.max(1), planes).write(path)
}

fn sheet(width: usize, planes: &[Found]) -> Picture {
    let height = planes.first().map_or(1, |plane| (plane.labels.len() / width).max(1));
    let columns = (1..).find(|n| n * n >= planes.len()).unwrap_or(1);
    let rows = planes.len().div_ceil(columns);
    let scale = TILE_WIDTH.div_ceil(width);
    let (step_x, step_y) = (width + GAP, height + GAP);
    let mut sheet = Picture::new((columns * step_x + GAP) * scale, (rows * step_y + GAP) * scale, PAPER);
    for (number, plane) in planes.iter().enumerate() {
        let (x, y) = (number % columns * step_x + GAP, number / columns * step_y + GAP);
        sheet.put(x * scale, y * scale, width * scale, &enlarged(plane, width, scale));
    }
    sheet
}

/// The plane's pixels, each `scale` times as wide and as high.
fn enlarged(plane: &Found, width: usize, scale: usize) -> Vec<u8> {
    let rows = plane.labels.chunks_exact(width);
    let enlarge = |row: &[u32]| row.iter().flat_map(|&label| colour(label).repeat(scale)).collect::<Vec<u8>>().repeat(scale);
    rows.flat_map(enlarge).collect()
}

/// Neighbouring numbers get distant hues: each is a golden section of the circle further.
fn colour(label: u32) -> [u8; 3] {
    if label == 0 {
        return BACKGROUND;
    }
    let hue = f64::from(label) * 0.618_033_988_749_895 % 1.0 * 6.0;
    [5.0, 3.0, 1.0].map(|shift| {
        let place = (shift + hue) % 6.0;
        let shade = 0.95 - 0.65 * place.min(4.0 - place).clamp(0.0, 1.0);
        (shade * 255.0) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(labels: &[u32]) -> Found {
        Found { max_smoothed: 1.0, foreground: 1, regions: 1, labels: labels.to_vec() }
    }

    #[test]
    fn planes_stand_in_a_grid_with_gaps() {
        let planes = [plane(&[0, 1]), plane(&[2, 0]), plane(&[3, 3])];
        let sheet = sheet(2, &planes);
        // Two columns of 2 x 1 planes, two rows, enlarged to 128 pixels a plane.
        let at = |x: usize, y: usize| sheet.at(x * 64, y * 64).expect("on the sheet");
        assert_eq!((at(9, 7), sheet.at(10 * 64, 0), sheet.at(0, 8 * 64)), (PAPER, None, None));
        assert_eq!([at(0, 0), at(1, 2), at(4, 2)], [PAPER; 3]);
        assert_eq!([at(2, 2), at(3, 2), at(6, 2), at(7, 2)], [BACKGROUND, colour(1), colour(2), BACKGROUND]);
        assert_eq!([at(2, 5), at(3, 5), at(6, 5)], [colour(3), colour(3), PAPER]);
    }

    #[test]
    fn neighbours_differ_in_colour() {
        for label in 0..50 {
            let (one, next) = (colour(label), colour(label + 1));
            let distance: u32 = one.iter().zip(next).map(|(a, b)| u32::from(a.abs_diff(b))).sum();
            assert!(distance > 100, "{label}: {one:?} {next:?}");
        }
    }
}
