//! Image stacks, and reading them from TIFF files. Must not know: what is looked for in them.

use std::{fs::File, io::BufReader, path::Path};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tiff::{
    ColorType, TiffError,
    decoder::{Decoder, DecodingResult},
};

/// A grey image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plane {
    width: u32,
    pixels: Vec<u16>,
}

impl Plane {
    /// An image from its pixels, row by row; `None` if there are not `width * height` of them, or none.
    #[must_use]
    pub fn new(width: u32, height: u32, pixels: Vec<u16>) -> Option<Self> {
        let fits = !pixels.is_empty() && u64::from(width) * u64::from(height) == pixels.len() as u64;
        fits.then_some(Self { width, pixels })
    }

    /// Pixels in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width as usize
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.pixels.len() / self.width().max(1)
    }

    /// The pixels, row by row.
    #[must_use]
    pub fn pixels(&self) -> &[u16] {
        &self.pixels
    }
}

/// Planes of one size, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    planes: Vec<Plane>,
}

/// Why a file is no stack.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StackError {
    /// The file cannot be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no TIFF, a broken one, or compressed in a way that is not read.
    #[error("{path} cannot be read as a TIFF image: {source}")]
    Tiff {
        /// The file.
        path: String,
        /// What the decoder said.
        source: TiffError,
    },
    /// It holds other images than grey ones of 8 or 16 bits.
    #[error("plane {plane} of {path} is {kind}; only 8-bit and 16-bit grey images are read")]
    Kind {
        /// The file.
        path: String,
        /// The plane, from 0.
        plane: usize,
        /// What it is.
        kind: String,
    },
    /// Its planes differ in size.
    #[error("plane {plane} of {path} is {found}, the planes before it are {expected}; a stack's planes have one size")]
    Size {
        /// The file.
        path: String,
        /// The plane, from 0.
        plane: usize,
        /// Its size.
        found: String,
        /// The others'.
        expected: String,
    },
}

impl Stack {
    /// A stack of these planes; `None` if there are none, or their sizes differ.
    #[must_use]
    pub fn new(planes: Vec<Plane>) -> Option<Self> {
        let first = planes.first()?;
        planes.iter().all(|plane| size(plane) == size(first)).then_some(Self { planes })
    }

    /// Reads all images of a TIFF file: grey, 8 or 16 bits, uncompressed, PackBits, LZW or deflate.
    ///
    /// # Errors
    /// When the file cannot be opened, is no such TIFF, or its images differ in size.
    pub fn read(path: &Path) -> Result<Self, StackError> {
        let name = || path.display().to_string();
        let tiff_error = |source| StackError::Tiff { path: name(), source };
        let file = File::open(path).map_err(|source| StackError::Open { path: name(), source })?;
        let mut decoder = Decoder::new(BufReader::new(file)).map_err(tiff_error)?;
        let mut planes: Vec<Plane> = Vec::new();
        loop {
            let at = planes.len();
            let plane = read_plane(&mut decoder).map_err(tiff_error)?;
            let plane = plane.map_err(|kind| StackError::Kind { path: name(), plane: at, kind })?;
            if let Some(first) = planes.first()
                && size(first) != size(&plane)
            {
                let (found, expected) = (size(&plane), size(first));
                return Err(StackError::Size { path: name(), plane: at, found, expected });
            }
            planes.push(plane);
            if !decoder.more_images() {
                return Ok(Self { planes });
            }
            decoder.next_image().map_err(tiff_error)?;
        }
    }

    /// The planes.
    #[must_use]
    pub fn planes(&self) -> &[Plane] {
        &self.planes
    }

    /// The planes.
    #[must_use]
    pub fn into_planes(self) -> Vec<Plane> {
        self.planes
    }
}

/// Reads the decoder's present image, or says what kind it is instead.
fn read_plane(decoder: &mut Decoder<BufReader<File>>) -> Result<Result<Plane, String>, TiffError> {
    let (width, height) = decoder.dimensions()?;
    let kind = match decoder.colortype()? {
        ColorType::Gray(8 | 16) => None,
        ColorType::Gray(bits) => Some(format!("grey with {bits} bits a pixel")),
        ColorType::RGB(_) | ColorType::RGBA(_) | ColorType::YCbCr(_) | ColorType::Lab(_) => Some("in colour".into()),
        ColorType::CMYK(_) | ColorType::CMYKA(_) => Some("in print colours (CMYK)".into()),
        ColorType::Palette(_) => Some("in palette colours".into()),
        ColorType::GrayA(_) => Some("grey with transparency".into()),
        other => Some(format!("of another kind ({other:?})")),
    };
    if let Some(kind) = kind {
        return Ok(Err(kind));
    }
    let pixels = match decoder.read_image()? {
        DecodingResult::U8(bytes) => bytes.into_iter().map(u16::from).collect(),
        DecodingResult::U16(pixels) => pixels,
        DecodingResult::I8(_) | DecodingResult::I16(_) => return Ok(Err("grey with signed values".into())),
        _ => return Ok(Err("grey with values that are no whole numbers".into())),
    };
    Ok(Plane::new(width, height, pixels).ok_or_else(|| format!("{width} x {height} pixels with others missing or left over")))
}

fn size(plane: &Plane) -> String {
    format!("{} x {} pixels", plane.width(), plane.height())
}
