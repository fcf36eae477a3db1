//! Which TIFF files are read, and what is said about the others.

use std::{fs::File, path::PathBuf};

use quicsand_examples::stack::{Plane, Stack};
use tempfile::TempDir;
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};

const WIDTH: u32 = 13;
const HEIGHT: u32 = 7;
const PIXELS: usize = (WIDTH * HEIGHT) as usize;

/// A directory, and a file in it that an encoder wrote.
fn written(compression: Compression, write: impl FnOnce(&mut TiffEncoder<File>)) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("stack.tif");
    let file = File::create(&path).expect("a file");
    write(&mut TiffEncoder::new(file).expect("a TIFF begins").with_compression(compression));
    (dir, path)
}

fn ramp(plane: u16) -> Vec<u16> {
    (0..PIXELS).map(|at| 1000 * plane + at as u16 / 3).collect()
}

#[test]
fn grey_stacks_are_read_however_they_are_compressed() {
    let plane = |pixels: Vec<u16>| Plane::new(WIDTH, HEIGHT, pixels).expect("they fit");
    let compressions = [
        ("none", Compression::Uncompressed),
        ("PackBits", Compression::Packbits),
        ("LZW", Compression::Lzw),
        ("deflate", Compression::Deflate(DeflateLevel::Balanced)),
    ];
    for (name, compression) in compressions {
        let (_dir, path) = written(compression, |tiff| {
            for number in 0..3 {
                tiff.write_image::<colortype::Gray16>(WIDTH, HEIGHT, &ramp(number)).expect("a plane");
            }
        });
        let stack = Stack::read(&path).expect("a grey stack");
        assert_eq!(stack.planes(), [0, 1, 2].map(|number| plane(ramp(number))), "compression: {name}");
    }
    let bytes: Vec<u8> = (0..PIXELS).map(|at| at as u8).collect();
    let (_dir, path) =
        written(Compression::Lzw, |tiff| tiff.write_image::<colortype::Gray8>(WIDTH, HEIGHT, &bytes).expect("a plane"));
    let expected = plane(bytes.iter().copied().map(u16::from).collect());
    assert_eq!(Stack::read(&path).expect("a grey plane").planes(), [expected]);
}

#[test]
fn anything_else_is_refused_with_what_it_is() {
    let check = |write: &dyn Fn(&mut TiffEncoder<File>), expected: &str| {
        let (_dir, path) = written(Compression::Uncompressed, |tiff| write(tiff));
        let error = Stack::read(&path).expect_err("is refused").to_string();
        assert!(error.contains(expected) && error.contains("stack.tif"), "{error}");
    };
    check(&|tiff| tiff.write_image::<colortype::RGB8>(1, 1, &[1, 2, 3]).expect("writes"), "plane 0 of");
    check(&|tiff| tiff.write_image::<colortype::RGB8>(1, 1, &[1, 2, 3]).expect("writes"), "in colour");
    check(&|tiff| tiff.write_image::<colortype::CMYK8>(1, 1, &[1, 2, 3, 4]).expect("writes"), "print colours");
    check(&|tiff| tiff.write_image::<colortype::Gray32>(1, 1, &[1]).expect("writes"), "32 bits");
    check(&|tiff| tiff.write_image::<colortype::Gray32Float>(1, 1, &[1.0]).expect("writes"), "32 bits");
    check(&|tiff| tiff.write_image::<colortype::GrayI16>(1, 1, &[-1]).expect("writes"), "signed");
    let two_sizes = |tiff: &mut TiffEncoder<File>| {
        tiff.write_image::<colortype::Gray8>(2, 1, &[1, 2]).expect("writes");
        tiff.write_image::<colortype::Gray8>(1, 2, &[1, 2]).expect("writes");
    };
    check(&two_sizes, "1 x 2 pixels, the planes before it are 2 x 1 pixels");
}

#[test]
fn broken_files_are_refused() {
    let (_dir, path) = written(Compression::Uncompressed, |tiff| {
        tiff.write_image::<colortype::Gray16>(WIDTH, HEIGHT, &ramp(1)).expect("writes")
    });
    let whole = std::fs::read(&path).expect("the file");
    // Cut off or damaged anywhere: an error, or other pixels, but never a panic.
    for at in 0..whole.len() {
        std::fs::write(&path, &whole[..at]).expect("cut off");
        assert!(Stack::read(&path).is_err(), "cut off at {at}");
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&path, &damaged).expect("damaged");
        let _ = Stack::read(&path);
    }
}
