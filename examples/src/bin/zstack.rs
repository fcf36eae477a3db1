//! Finds nuclei in a stack of microscope images, a call a plane.

use std::{error::Error, fs::File, io::BufWriter, path::PathBuf, process::ExitCode};

use clap::Parser;
use quicsand_examples::{nuclei, session::RunOn, sheet, stack::Stack, synthetic, table};

/// Finds nuclei in every plane of an image stack.
///
/// Takes the stack's minimum off, smooths each plane, keeps what is brighter than 0.33 of its maximum, and labels the connected regions.
/// Runs in this process, unless told otherwise or QUICSAND_SCHEDULER and QUICSAND_TOKEN name a fleet.
#[derive(Debug, Parser)]
struct Options {
    /// A TIFF file of 8-bit or 16-bit grey images; without one, a stack is made up
    #[arg(value_name = "FILE.tif")]
    file: Option<PathBuf>,
    /// Write a line a plane to OUT: its number, smoothed maximum, foreground pixels and regions
    #[arg(long, value_name = "OUT")]
    csv: Option<PathBuf>,
    /// Write a picture of the regions in all planes to OUT
    #[arg(long, value_name = "OUT")]
    png: Option<PathBuf>,
    #[command(flatten)]
    run_on: RunOn,
}

#[quicsand::main]
fn main() -> ExitCode {
    quicsand_examples::finish(run(&Options::parse()))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let (name, stack) = match &options.file {
        Some(path) => (path.display().to_string(), Stack::read(path)?),
        None => ("a made-up stack".to_owned(), synthetic::stack()),
    };
    let [first, ..] = stack.planes() else { return Err("the stack is empty".into()) };
    let (width, height, depth) = (first.width(), first.height(), stack.planes().len());

    let session = options.run_on.start()?;
    eprintln!("zstack: {name}, {depth} planes of {width} x {height} pixels, running {session}");
    let futures = nuclei::find(&session.client, stack);
    session.client.progress(&futures);
    let planes = session.client.gather(&futures)?;

    let unwritable = |path: &PathBuf, error| format!("cannot write {}: {error}", path.display());
    if let Some(path) = &options.csv {
        let file = File::create(path).map_err(|error| unwritable(path, error))?;
        table::write(&mut BufWriter::new(file), &planes).map_err(|error| unwritable(path, error))?;
    }
    if let Some(path) = &options.png {
        sheet::write(path, width, &planes)?;
    }
    let regions: u64 = planes.iter().map(|plane| u64::from(plane.regions)).sum();
    let foreground: u64 = planes.iter().map(|plane| u64::from(plane.foreground)).sum();
    let part = 100.0 * foreground as f64 / (width * height * depth) as f64;
    println!("{depth} planes, {regions} regions, {part:.1} % of the pixels in them");
    for path in [&options.csv, &options.png].into_iter().flatten() {
        println!("wrote {}", path.display());
    }
    Ok(())
}
