//! Pictures as PNG files. Must not know: what is on them.

use std::{fs::File, io::BufWriter, path::Path};

use thiserror::Error;

/// Why a picture could not be written.
#[derive(Debug, Error)]
#[error("cannot write {path}: {reason}")]
#[non_exhaustive]
pub struct PictureError {
    /// The file.
    pub path: String,
    /// Why not.
    pub reason: png::EncodingError,
}

/// A picture: red, green and blue of each pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture of one colour.
    #[must_use]
    pub fn new(width: usize, height: usize, colour: [u8; 3]) -> Self {
        Self { width, rgb: colour.repeat(width * height) }
    }

    /// Puts pixels, `width` in a row, where their first is at (`x`, `y`). What lies beyond the borders is cut off.
    pub fn put(&mut self, x: usize, y: usize, width: usize, rgb: &[u8]) {
        if x >= self.width {
            return;
        }
        let len = width.min(self.width - x) * 3;
        let rows = self.rgb.chunks_exact_mut(self.width.max(1) * 3).skip(y);
        for (row, pixels) in rows.zip(rgb.chunks_exact(width.max(1) * 3)) {
            row[x * 3..][..len].copy_from_slice(&pixels[..len]);
        }
    }

    /// The pixel at (`x`, `y`), if there is one.
    #[must_use]
    pub fn at(&self, x: usize, y: usize) -> Option<[u8; 3]> {
        let at = (x < self.width).then_some((y * self.width + x) * 3)?;
        self.rgb.get(at..at + 3)?.try_into().ok()
    }

    /// Writes it as a PNG.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PictureError> {
        let failed = |reason| PictureError { path: path.display().to_string(), reason };
        let file = File::create(path).map_err(|error| failed(error.into()))?;
        self.encode(BufWriter::new(file)).map_err(failed)
    }

    fn encode(&self, to: BufWriter<File>) -> Result<(), png::EncodingError> {
        let side = |length| u32::try_from(length).map_err(|_| png::EncodingError::LimitsExceeded);
        let height = self.rgb.len() / 3 / self.width.max(1);
        let mut encoder = png::Encoder::new(to, side(self.width)?, side(height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_lie_where_they_are_put_and_nowhere_else() {
        let mut picture = Picture::new(4, 3, [9; 3]);
        picture.put(1, 1, 2, &[[1; 3], [2; 3], [3; 3], [4; 3]].concat());
        let row = |y| (0..4).map(|x| picture.at(x, y).expect("inside")[0]).collect::<Vec<_>>();
        assert_eq!([row(0), row(1), row(2)], [[9, 9, 9, 9], [9, 1, 2, 9], [9, 3, 4, 9]]);
        assert_eq!((picture.at(4, 0), picture.at(0, 3)), (None, None));
    }

    #[test]
    fn what_lies_beyond_the_borders_is_cut_off() {
        let mut picture = Picture::new(2, 2, [0; 3]);
        picture.put(1, 1, 2, &[7; 12]);
        picture.put(5, 5, 1, &[8; 3]);
        picture.put(50, 0, 1, &[8; 3]);
        assert_eq!(picture.rgb, [[0; 3], [0; 3], [0; 3], [7; 3]].concat());
    }
}
