//! The Mandelbrot set: a call a tile, a picture of them all.

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;
use quicsand::task;
use quicsand_examples::{picture::Picture, session::RunOn};
use serde::{Deserialize, Serialize};

/// Width of the picture in the plane, where nothing is enlarged.
const SPAN: f64 = 3.6;
/// What has come so far from 0, squared, never returns.
const FAR: f64 = 65_536.0;
/// What never goes far.
const INSIDE: [f64; 3] = [6.0, 6.0, 10.0];
/// What does, from little time to much; then from the first again.
const COLOURS: [[f64; 3]; 6] =
    [[8.0, 20.0, 72.0], [32.0, 107.0, 203.0], [237.0, 255.0, 255.0], [255.0, 170.0, 0.0], [130.0, 30.0, 20.0], [10.0, 4.0, 24.0]];

/// What part of the plane is drawn, and how well.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct View {
    /// The plane's point at the picture's upper left corner.
    left: f64,
    top: f64,
    /// Side of a pixel in the plane.
    pixel: f64,
    iterations: u32,
    /// Points that are tried in a pixel, along either side.
    samples: u32,
}

/// A part of the picture, in pixels.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Tile {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// Draws a tile: red, green and blue of each pixel, row by row.
///
/// Only what IEEE 754 defines to the last digit is used, such as `+` and `*`: a tile has the same bytes wherever it is drawn.
#[task]
fn draw(view: View, tile: Tile) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(tile.width as usize * tile.height as usize * 3);
    for y in tile.y..tile.y + tile.height {
        for x in tile.x..tile.x + tile.width {
            rgb.extend(pixel(view, x, y));
        }
    }
    rgb
}

/// The mean colour of a pixel's points.
fn pixel(view: View, x: u32, y: u32) -> [u8; 3] {
    let step = view.pixel / f64::from(view.samples);
    let place = |pixel: u32, sample: u32| (f64::from(pixel * view.samples + sample) + 0.5) * step;
    let mut sum = [0.0; 3];
    for down in 0..view.samples {
        for right in 0..view.samples {
            let colour = colour(view.left + place(x, right), view.top - place(y, down), view.iterations);
            sum.iter_mut().zip(colour).for_each(|(sum, part)| *sum += part);
        }
    }
    let points = f64::from(view.samples * view.samples);
    sum.map(|part| (part / points) as u8)
}

/// The colour of a point: how soon z² + c goes far, starting from 0.
fn colour(real: f64, imaginary: f64, iterations: u32) -> [f64; 3] {
    let (mut x, mut y) = (0.0, 0.0);
    for time in 0..iterations {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > FAR {
            // How far it went says where between two times it got there.
            let late = rough_log2(rough_log2(xx + yy) / rough_log2(FAR));
            return shade(f64::from(time) - late);
        }
        (x, y) = (xx - yy + real, 2.0 * x * y + imaginary);
    }
    INSIDE
}

/// About the binary logarithm, read off a number's bits: straight lines between powers of 2. That of the library differs in its last
/// digits from machine to machine.
fn rough_log2(number: f64) -> f64 {
    number.to_bits() as f64 / (1_u64 << 52) as f64 - 1023.0
}

/// The colour of a time, between two of the list.
fn shade(time: f64) -> [f64; 3] {
    let place = time.max(0.0) / 8.0 % COLOURS.len() as f64;
    let (at, part) = (place as usize, place.fract());
    let (one, next) = (COLOURS[at % COLOURS.len()], COLOURS[(at + 1) % COLOURS.len()]);
    std::array::from_fn(|channel| one[channel] + (next[channel] - one[channel]) * part)
}

/// Draws the Mandelbrot set, a call a tile.
///
/// Runs in this process, unless told otherwise or QUICSAND_SCHEDULER and QUICSAND_TOKEN name a fleet.
#[derive(Debug, Parser)]
struct Options {
    /// Where to write the picture
    #[arg(value_name = "OUT.png", default_value = "mandelbrot.png")]
    png: PathBuf,
    /// Pixels in a row
    #[arg(long, value_name = "PIXELS", default_value_t = 1200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    width: u32,
    /// Rows
    #[arg(long, value_name = "PIXELS", default_value_t = 800, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    height: u32,
    /// Pixels of a tile, along either side
    #[arg(long, value_name = "PIXELS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=1000))]
    tile: u32,
    /// The real part of the picture's centre
    #[arg(long, value_name = "REAL", default_value_t = -0.65, allow_negative_numbers = true, value_parser = coordinate)]
    x: f64,
    /// The imaginary part of the picture's centre
    #[arg(long, value_name = "IMAGINARY", default_value_t = 0.0, allow_negative_numbers = true, value_parser = coordinate)]
    y: f64,
    /// How much is enlarged
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, value_parser = zoom)]
    zoom: f64,
    /// Steps after which a point is taken to stay near for ever
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    iterations: u32,
    /// Points that are tried in a pixel, along either side; more make smoother edges
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    samples: u32,
    #[command(flatten)]
    run_on: RunOn,
}

fn coordinate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.abs() <= 4.0).ok_or_else(|| "write a number between -4 and 4".to_owned())
}

fn zoom(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.1..=1e12).contains(number));
    number.ok_or_else(|| "write a number between 0.1 and 1e12; beyond that, neighbours are too close for f64".to_owned())
}

#[quicsand::main]
fn main() -> ExitCode {
    quicsand_examples::finish(run(&Options::parse()))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let &Options { width, height, iterations, samples, .. } = options;
    let pixel = SPAN / options.zoom / f64::from(width);
    let (left, top) = (options.x - pixel * f64::from(width) / 2.0, options.y + pixel * f64::from(height) / 2.0);
    let view = View { left, top, pixel, iterations, samples };
    let tiles = tiles(width, height, options.tile);

    let session = options.run_on.start()?;
    eprintln!("mandelbrot: {width} x {height} pixels in {} tiles, running {session}", tiles.len());
    let drawn = session.client.map(draw, tiles.iter().map(|tile| (view, tile)));
    session.client.progress(&drawn);

    let mut picture = Picture::new(width as usize, height as usize, [0; 3]);
    for (tile, pixels) in tiles.iter().zip(drawn) {
        picture.put(tile.x as usize, tile.y as usize, tile.width as usize, &pixels.result()?);
    }
    picture.write(&options.png)?;
    println!("wrote {}", options.png.display());
    Ok(())
}

/// The tiles of a picture, those at its far borders cut off there.
fn tiles(width: u32, height: u32, side: u32) -> Vec<Tile> {
    let starts = |length: u32| (0..length).step_by(side as usize);
    let tile = |x, y| Tile { x, y, width: side.min(width - x), height: side.min(height - y) };
    starts(height).flat_map(|y| starts(width).map(move |x| tile(x, y))).collect()
}
