//! Finding nuclei in the planes of a stack: the tasks of `zstack`, and how they hang together. Must not know: files.
//!
//! The figures are those of SciPy's `gaussian_filter(plane - background, sigma=1)` with its defaults (border `reflect`, truncated at
//! four sigma) and of `label` with its default structure (neighbours along rows and columns).

use quicsand::{Client, Futures, task};
use serde::{Deserialize, Serialize};

use crate::stack::{Plane, Stack};

/// Width of the Gaussian, in pixels.
const SIGMA: f64 = 1.0;
/// Pixels on either side that it reaches: four sigma.
const RADIUS: usize = 4;
/// What is brighter than this part of the plane's maximum is foreground.
const THRESHOLD: f64 = 0.33;

/// What was found in a plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The smoothed plane's maximum, over the background.
    pub max_smoothed: f64,
    /// Number of pixels in the foreground.
    pub foreground: u32,
    /// Number of connected regions.
    pub regions: u32,
    /// Each pixel's region, row by row: 0 for the background, then 1 to `regions` by their first pixels.
    pub labels: Vec<u32>,
}

/// The darkest pixel's value.
#[task]
#[must_use]
pub fn darkest(plane: &Plane) -> u16 {
    plane.pixels().iter().copied().min().unwrap_or(0)
}

/// The least of all values.
#[task]
#[must_use]
pub fn least(values: &[u16]) -> u16 {
    values.iter().copied().min().unwrap_or(0)
}

/// Takes the background off a plane, smooths it, and labels what is brighter than a third of its maximum.
#[task]
#[must_use]
pub fn segment(plane: &Plane, background: u16) -> Found {
    let over: Vec<f64> = plane.pixels().iter().map(|&value| f64::from(value) - f64::from(background)).collect();
    let smoothed = smooth(&over, plane.width());
    let max_smoothed = smoothed.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mask: Vec<bool> = smoothed.iter().map(|&value| value > THRESHOLD * max_smoothed).collect();
    let (labels, regions) = label(&mask, plane.width());
    let foreground = mask.iter().map(|&is_foreground| u32::from(is_foreground)).sum();
    Found { max_smoothed, foreground, regions, labels }
}

/// Submits everything: each plane travels once, its minimum and then its segmentation run where it lies, and the stack's minimum is a
/// call like any other that the segmentations wait for.
pub fn find(client: &Client, stack: Stack) -> Futures<Found> {
    let planes: Vec<_> = stack.into_planes().into_iter().map(|plane| client.scatter(plane)).collect();
    let background = client.submit(least, client.map(darkest, &planes));
    client.map(segment, planes.iter().map(|plane| (plane, &background)))
}

/// Convolves with a Gaussian along columns, then rows.
fn smooth(image: &[f64], width: usize) -> Vec<f64> {
    let kernel = gaussian();
    let height = image.len() / width.max(1);
    let mut columns = vec![0.0; image.len()];
    for (y, row) in columns.chunks_exact_mut(width.max(1)).enumerate() {
        for (k, weight) in kernel.iter().enumerate() {
            let from = reflect(y + k, height) * width;
            row.iter_mut().zip(&image[from..from + width]).for_each(|(to, value)| *to += weight * value);
        }
    }
    let mut padded = Vec::with_capacity(width + 2 * RADIUS);
    let mut smoothed = Vec::with_capacity(image.len());
    for row in columns.chunks_exact(width.max(1)) {
        padded.clear();
        padded.extend((0..width + 2 * RADIUS).map(|x| row[reflect(x, width)]));
        smoothed.extend(padded.windows(kernel.len()).map(|near| near.iter().zip(&kernel).map(|(v, w)| v * w).sum::<f64>()));
    }
    smoothed
}

/// Weights from `-RADIUS` to `RADIUS`; their sum is 1.
fn gaussian() -> [f64; 2 * RADIUS + 1] {
    let weights: [f64; 2 * RADIUS + 1] = std::array::from_fn(|i| {
        let x = i.abs_diff(RADIUS) as f64;
        (-0.5 * x * x / (SIGMA * SIGMA)).exp()
    });
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

/// Where a line of `len` pixels has the pixel that lies `RADIUS` before `at`, beyond its ends mirrored with the last pixel twice.
fn reflect(at: usize, len: usize) -> usize {
    let period = 2 * len;
    // One period more than enough to the left, so that nothing is negative.
    let place = (at + period * RADIUS - RADIUS) % period;
    place.min(period - 1 - place)
}

/// Numbers the 4-connected regions of a mask by their first pixels.
fn label(mask: &[bool], width: usize) -> (Vec<u32>, u32) {
    let mut labels = vec![0; mask.len()];
    let mut regions = 0;
    let mut stack = Vec::new();
    for first in 0..mask.len() {
        if !mask[first] || labels[first] != 0 {
            continue;
        }
        regions += 1;
        labels[first] = regions;
        stack.push(first);
        while let Some(at) = stack.pop() {
            let x = at % width;
            let around = [
                (x > 0).then(|| at - 1),
                (x + 1 < width).then_some(at + 1),
                at.checked_sub(width),
                Some(at + width).filter(|&below| below < mask.len()),
            ];
            for near in around.into_iter().flatten() {
                if mask[near] && labels[near] == 0 {
                    labels[near] = regions;
                    stack.push(near);
                }
            }
        }
    }
    (labels, regions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_repeats_the_last_pixel() {
        let line: Vec<_> = (0..3 + 2 * RADIUS).map(|at| reflect(at, 3)).collect();
        assert_eq!(line, [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]);
        assert!((0..1 + 2 * RADIUS).all(|at| reflect(at, 1) == 0));
    }

    #[test]
    fn smoothing_keeps_a_constant_and_spreads_a_point() {
        assert!(smooth(&[5.0; 12], 4).iter().all(|value| (value - 5.0).abs() < 1e-12));
        let mut point = vec![0.0; 11 * 11];
        point[5 * 11 + 5] = 1.0;
        let spread = smooth(&point, 11);
        // gaussian_filter of a unit impulse, sigma 1: the centre is the square of the kernel's middle weight.
        assert!((spread[5 * 11 + 5] - 0.398_943_469_356_09_f64.powi(2)).abs() < 1e-12);
        assert!((spread.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn regions_touch_along_rows_and_columns_only() {
        let mask = [1, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1].map(|bit| bit == 1);
        let (labels, regions) = label(&mask, 4);
        assert_eq!((labels, regions), (vec![1, 0, 2, 2, 1, 0, 0, 0, 0, 3, 3, 3], 3));
    }

    #[test]
    fn a_flat_plane_has_no_foreground() {
        let plane = Plane::new(3, 2, vec![7; 6]).expect("six pixels");
        let found = segment(&plane, 7);
        assert_eq!((found.max_smoothed, found.foreground, found.regions), (0.0, 0, 0));
    }
}
