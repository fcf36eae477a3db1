//! Samples of a function of several variables, to learn it from. Owns: making them up, and reading them from files. Must not know: how
//! they are learned from.

use std::{fs, io, path::Path};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Inputs and the output that was measured for them, a row a sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    columns: usize,
    /// Row by row.
    inputs: Vec<f64>,
    outputs: Vec<f64>,
}

/// Why a file holds no samples.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SamplesError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A field is no number.
    #[error("{path}, line {line}: `{field}` is no number")]
    Number {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is there.
        field: String,
    },
    /// A line has fewer or more fields than the first, or that has fewer than two.
    #[error(
        "{path}, line {line}: it has another number of fields ({found}) than it should ({expected}): the inputs, then the output"
    )]
    Columns {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// Its fields.
        found: usize,
        /// Those of the lines before; of the first line, at least two.
        expected: usize,
    },
}

impl Samples {
    /// Reads comma-separated numbers, a sample a line, the output last. A first line that is no numbers is taken for headings; empty
    /// lines are left out. Inputs are brought to mean 0 and standard deviation 1, so that all weigh the same.
    ///
    /// # Errors
    /// When the file cannot be read, or is not like that.
    pub fn read(path: &Path) -> Result<Self, SamplesError> {
        let name = || path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| SamplesError::Read { path: name(), source })?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let mut samples = Self { columns: 0, inputs: Vec::new(), outputs: Vec::new() };
        for (at, line) in lines {
            let fields = line.split(',').map(str::trim);
            let numbers: Result<Vec<f64>, &str> =
                fields.map(|field| field.parse().ok().filter(|number: &f64| number.is_finite()).ok_or(field)).collect();
            match numbers {
                Ok(mut numbers) => {
                    let found = numbers.len();
                    let expected = if samples.is_empty() { found.max(2) } else { samples.columns + 1 };
                    match numbers.pop().filter(|_| found == expected) {
                        Some(output) => samples.outputs.push(output),
                        None => return Err(SamplesError::Columns { path: name(), line: at + 1, found, expected }),
                    }
                    samples.columns = numbers.len();
                    samples.inputs.extend(numbers);
                }
                Err(_) if at == 0 => {}
                Err(field) => return Err(SamplesError::Number { path: name(), line: at + 1, field: field.to_owned() }),
            }
        }
        samples.standardize();
        Ok(samples)
    }

    /// Friedman's first function (Multivariate Adaptive Regression Splines, 1991), 10 sin(π a b) + 20 (c - 1/2)² + 10 d + 5 e, of five
    /// variables between 0 and 1, with uniform noise of standard deviation 1.
    #[must_use]
    pub fn friedman(count: usize, seed: u64) -> Self {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut samples = Self { columns: 5, inputs: Vec::with_capacity(5 * count), outputs: Vec::with_capacity(count) };
        let reach = 3_f64.sqrt();
        for _ in 0..count {
            let [a, b, c, d, e]: [f64; 5] = random.random();
            let output = 10.0 * (std::f64::consts::PI * a * b).sin() + 20.0 * (c - 0.5) * (c - 0.5) + 10.0 * d + 5.0 * e;
            samples.inputs.extend([a, b, c, d, e]);
            samples.outputs.push(output + random.random_range(-reach..reach));
        }
        samples
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Number of inputs of a sample.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The inputs of a sample.
    #[must_use]
    pub fn input(&self, row: usize) -> &[f64] {
        &self.inputs[row * self.columns..][..self.columns]
    }

    /// The output of a sample.
    #[must_use]
    pub fn output(&self, row: usize) -> f64 {
        self.outputs[row]
    }

    fn standardize(&mut self) {
        let (columns, count) = (self.columns, self.len() as f64);
        for column in 0..columns {
            let values = || self.inputs.iter().skip(column).step_by(columns);
            let mean = values().sum::<f64>() / count;
            let deviation = (values().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count).sqrt();
            let scale = if deviation > 0.0 { deviation } else { 1.0 };
            self.inputs.iter_mut().skip(column).step_by(columns).for_each(|value| *value = (*value - mean) / scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Samples, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        Samples::read(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn tables_are_read_with_and_without_headings() {
        let samples = read("a,b,y\n1,5,10\n\n3, 5,20\n").expect("a table");
        assert_eq!((samples.len(), samples.columns()), (2, 2));
        assert_eq!([samples.input(0), samples.input(1)], [[-1.0, 0.0], [1.0, 0.0]]);
        assert_eq!([samples.output(0), samples.output(1)], [10.0, 20.0]);
        assert_eq!(read("1,5,10\n3,5,20"), Ok(samples));
    }

    #[test]
    fn anything_else_is_refused_with_its_line() {
        let check = |text: &str, expected: &str| {
            let error = read(text).expect_err("is refused");
            assert!(error.contains(expected), "{error}");
        };
        check("a,b\n1,2\n1,x\n", "line 3: `x` is no number");
        check("1,2\n1,nan\n", "line 2: `nan` is no number");
        check("1,2\n1,2,3\n", "line 2: it has another number of fields (3) than it should (2)");
        check("1\n2\n", "line 1: it has another number of fields (1) than it should (2)");
        let error = Samples::read(Path::new("no/such.csv")).expect_err("is not there").to_string();
        assert!(error.starts_with("cannot read no/such.csv: "), "{error}");
    }

    #[test]
    fn made_up_samples_depend_on_the_seed_alone() {
        let samples = Samples::friedman(1000, 1);
        assert_eq!(samples, Samples::friedman(1000, 1));
        assert_ne!(samples, Samples::friedman(1000, 2));
        // The terms' means: 10 Cin(π) / π, 20 / 12, 10 / 2, 5 / 2.
        let mean = samples.outputs.iter().sum::<f64>() / 1000.0;
        assert!((mean - 14.4).abs() < 0.5, "{mean}");
    }
}
