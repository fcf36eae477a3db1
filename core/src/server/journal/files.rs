//! What is too large for the table of facts: modules, and data that the shell keeps, a file each. Must not know: who needs them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    ids::{ClientId, EntryId, Hash, Key},
    net::files,
};

/// Names a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) enum Large {
    /// A program's module.
    Module(Hash),
    /// Data that no worker took.
    Data(Key),
}

impl Large {
    fn name(self) -> String {
        match self {
            Self::Module(hash) => format!("module-{hash}"),
            Self::Data(key) => format!("data-{}-{}-{}", key.entry.client, key.entry.seq, key.index),
        }
    }

    fn of(name: &str) -> Option<Self> {
        if let Some(hex) = name.strip_prefix("module-") {
            let mut bytes = [0; 32];
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
            }
            return Some(Self::Module(Hash(bytes))).filter(|large| large.name() == name);
        }
        let mut numbers = name.strip_prefix("data-")?.split('-').map(str::parse);
        let mut number = || numbers.next()?.ok();
        let entry = EntryId { client: ClientId(number()?), seq: number()? };
        Some(Self::Data(entry.key(number()?))).filter(|large| large.name() == name)
    }
}

/// The directory of the files.
#[derive(Debug)]
pub(super) struct Files(PathBuf);

impl Files {
    /// Opens the directory, and throws out what was not written to its end.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        files::create_directory(directory)?;
        let files = Self(directory.to_owned());
        for name in files.names()? {
            if Large::of(&name).is_none() {
                fs::remove_file(files.0.join(name))?;
            }
        }
        Ok(files)
    }

    /// Those that there are.
    pub(super) fn list(&self) -> io::Result<Vec<Large>> {
        let mut all: Vec<_> = self.names()?.iter().filter_map(|name| Large::of(name)).collect();
        all.sort_unstable();
        Ok(all)
    }

    pub(super) fn read(&self, large: Large) -> io::Result<Bytes> {
        fs::read(self.0.join(large.name())).map(Bytes::from)
    }

    /// Writes one, to stay.
    pub(super) fn write(&self, large: Large, bytes: &[u8]) -> io::Result<()> {
        files::write(&self.0.join(large.name()), bytes)
    }

    /// Removes one, if it is there.
    pub(super) fn remove(&self, large: Large) -> io::Result<()> {
        match fs::remove_file(self.0.join(large.name())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::files::Scratch;

    #[test]
    fn files_are_found_again_and_halves_are_not() {
        let scratch = Scratch::new("large");
        let files = Files::open(&scratch.0).expect("made");
        let module = Large::Module(Hash::of(b"m"));
        let data = Large::Data(EntryId { client: ClientId(7), seq: 1 }.key(0));
        files.write(module, b"m").expect("written");
        files.write(data, b"d").expect("written");
        fs::write(scratch.0.join("data-7-1-0.12-3.new"), b"half").expect("written");
        let files = Files::open(&scratch.0).expect("there");
        assert_eq!(files.list().expect("read"), [module, data]);
        assert_eq!(files.read(data).expect("there"), Bytes::from_static(b"d"));
        files.remove(data).expect("removed");
        files.remove(data).expect("not there is as well");
        assert_eq!(fs::read_dir(&scratch.0).expect("there").count(), 1);
    }
}
