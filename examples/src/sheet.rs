//! A contact sheet: the labels of all planes in one picture, a colour a region.

use std::{fs::File, io::BufWriter, path::Path};

use thiserror::Error;

use crate::nuclei::Found;

/// A plane is enlarged by a whole number to at least about this many pixels.
const TILE_WIDTH: usize = 128;
/// Pixels between planes, before enlargement.
const GAP: usize = 2;
const PAPER: [u8; 3] = [255, 255, 255];
const BACKGROUND: [u8; 3] = [18, 18, 24];

/// Why a picture could not be written.
#[derive(Debug, Error)]
#[error("cannot write {path}: {reason}")]
#[non_exhaustive]
pub struct SheetError {
    /// The file.
    pub path: String,
    /// Why not.
    pub reason: png::EncodingError,
}

/// Writes the labels of all planes, each `width` pixels wide, as a PNG.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, width: usize, planes: &[Found]) -> Result<(), SheetError> {
    let picture = Picture::of(width.max(1), planes);
    let failed = |reason| SheetError { path: path.display().to_string(), reason };
    let file = File::create(path).map_err(|error| failed(error.into()))?;
    picture.encode(BufWriter::new(file)).map_err(failed)
}

struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    fn of(plane_width: usize, planes: &[Found]) -> Self {
        let plane_height = planes.first().map_or(1, |plane| (plane.labels.len() / plane_width).max(1));
        let columns = (1..).find(|n| n * n >= planes.len()).unwrap_or(1);
        let rows = planes.len().div_ceil(columns);
        let scale = TILE_WIDTH.div_ceil(plane_width);
        let (step_x, step_y) = (plane_width + GAP, plane_height + GAP);
        let (width, height) = ((columns * step_x + GAP) * scale, (rows * step_y + GAP) * scale);
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in (0..height).map(|y| y / scale) {
            for x in (0..width).map(|x| x / scale) {
                let (tile_x, in_x) = split(x, step_x);
                let (tile_y, in_y) = split(y, step_y);
                let on_plane = in_x < plane_width && in_y < plane_height && tile_x < columns;
                let plane = planes.get(tile_y * columns + tile_x).filter(|_| on_plane);
                let label = plane.and_then(|plane| plane.labels.get(in_y * plane_width + in_x));
                rgb.extend(label.map_or(PAPER, |&label| colour(label)));
            }
        }
        Self { width, height, rgb }
    }

    fn encode(&self, to: BufWriter<File>) -> Result<(), png::EncodingError> {
        let side = |length| u32::try_from(length).map_err(|_| png::EncodingError::LimitsExceeded);
        let mut encoder = png::Encoder::new(to, side(self.width)?, side(self.height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()
    }
}

/// The tile that a pixel lies in, and its place there; in the gap before the first tile, a place beyond every plane.
fn split(at: usize, step: usize) -> (usize, usize) {
    at.checked_sub(GAP).map_or((0, usize::MAX), |at| (at / step, at % step))
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
        let picture = Picture::of(2, &planes);
        // Two columns of 2 x 1 planes, two rows, enlarged to 128 pixels a plane.
        assert_eq!((picture.width, picture.height), ((2 * 4 + 2) * 64, (2 * 3 + 2) * 64));
        let at = |x: usize, y: usize| {
            let start = (y * 64 * picture.width + x * 64) * 3;
            <[u8; 3]>::try_from(&picture.rgb[start..start + 3]).expect("three bytes")
        };
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
