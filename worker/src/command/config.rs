//! Settings from wherever they are said: defaults, a configuration file, the environment, flags. Owns: which of them holds, what is said
//! about a wrong one, and where each came from. Must not know: what any setting means.
//!
//! Settings are the fields of one struct of clap's. Whatever says something is a [`Layer`] of texts by their flags' names; [`resolve`] takes
//! the strongest layer's text for each, and clap reads them all alike. So a setting is described once, and means the same everywhere.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind, parser::ValueSource};
use quicsand::ConnectError;
use toml::{Table, Value};

/// What a variable's name begins with, unless its setting names another.
const PREFIX: &str = "QUICSAND_WORKER_";

/// The flags of settings, as they were given. The settings themselves come of [`resolve`].
#[derive(Debug)]
pub(super) struct Flags<T> {
    given: ArgMatches,
    settings: PhantomData<T>,
}

/// What one source says: texts by the name of their setting.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    source: Source,
    values: BTreeMap<String, Vec<OsString>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Default,
    /// Follows from other settings, or from the machine.
    Implied,
    File(PathBuf),
    Environment,
    Flags,
    Program,
}

/// Settings that were put together.
#[derive(Debug)]
pub(super) struct Resolved<T> {
    entries: Vec<Entry>,
    settings: PhantomData<T>,
}

/// One setting.
#[derive(Debug)]
struct Entry {
    key: String,
    help: String,
    /// The variable that it can be.
    variable: String,
    /// It has no flag, but a place.
    is_positional: bool,
    /// It can be given several times.
    is_list: bool,
    values: Vec<OsString>,
    source: Source,
}

impl<T: Args> Args for Flags<T> {
    fn augment_args(command: Command) -> Command {
        // What is missing here may be in the file.
        T::augment_args(command).mut_args(|arg| arg.required(false))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T> FromArgMatches for Flags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { given: matches.clone(), settings: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<T: Args> Flags<T> {
    /// What the flags say.
    pub(super) fn layer(&self) -> Layer {
        let given = |arg: &Arg| {
            let id = arg.get_id().as_str();
            let is_given = self.given.value_source(id) == Some(ValueSource::CommandLine);
            let values = self.given.get_raw(id).filter(|_| is_given)?;
            Some((key(arg), values.map(ToOwned::to_owned).collect()))
        };
        Layer { source: Source::Flags, values: command::<T>().get_arguments().filter_map(given).collect() }
    }
}

impl Layer {
    /// A configuration file.
    ///
    /// # Errors
    /// When it cannot be read, or is not TOML.
    pub(super) fn read(path: &Path) -> Result<Self, ConnectError> {
        let wrong = |reason| ConnectError::Setting { name: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("the configuration cannot be read: {error}")))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConnectError> {
        let wrong = |reason| ConnectError::Setting { name: path.display().to_string(), reason };
        let table = text.parse::<Table>().map_err(|error| wrong(format!("this is not TOML: {error}")))?;
        let values = table.into_iter().map(|(key, value)| {
            let texts =
                texts(value).ok_or_else(|| wrong(format!("`{key}` has tables or lists in a list; write texts or numbers")))?;
            Ok((key, texts))
        });
        Ok(Self { source: Source::File(path.to_owned()), values: values.collect::<Result<_, _>>()? })
    }

    /// The environment. A variable that is empty counts as one that is not there.
    pub(super) fn environment<T: Args>(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let given = |arg: &Arg| {
            let value = variable(&variable_of(arg)).filter(|value| !value.is_empty())?;
            let values = match value.to_str() {
                Some(list) if is_list(arg) => list.split(',').map(|text| text.trim().into()).collect(),
                _ => vec![value],
            };
            Some((key(arg), values))
        };
        Self { source: Source::Environment, values: arguments::<T>().iter().filter_map(given).collect() }
    }

    /// What a program says of the workers that it starts.
    pub(crate) fn program(settings: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut values = BTreeMap::<_, Vec<OsString>>::new();
        settings.into_iter().for_each(|(key, value)| values.entry(key).or_default().push(value.into()));
        Self { source: Source::Program, values }
    }
}

/// Puts settings together: for each, the last layer that says something holds.
///
/// # Errors
/// When a layer names a setting that there is not, or says something that it cannot be.
pub(super) fn resolve<T: Args>(layers: &[Layer]) -> Result<Resolved<T>, ConnectError> {
    let arguments = arguments::<T>();
    for layer in layers {
        if let Some(stranger) = layer.values.keys().find(|stranger| !arguments.iter().any(|arg| key(arg) == **stranger)) {
            let reason = match stranger.as_str() {
                "token" => "there is no such setting, as a token is a secret; name a file that has it, `token-file`",
                _ => "there is no such setting; `quicsand worker --help` lists them",
            };
            return Err(ConnectError::Setting { name: layer.source.name_of(stranger, ""), reason: reason.to_owned() });
        }
    }
    let entries = arguments.iter().map(|arg| {
        let key = key(arg);
        let said = layers.iter().rev().find_map(|layer| Some((layer.source.clone(), layer.values.get(&key)?.clone())));
        let default = || (Source::Default, arg.get_default_values().iter().map(|value| value.as_os_str().to_owned()).collect());
        let (source, values) = said.unwrap_or_else(default);
        let entry = Entry {
            help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
            variable: variable_of(arg),
            is_positional: arg.is_positional(),
            is_list: is_list(arg),
            key,
            values,
            source,
        };
        entry.check::<T>()?;
        Ok(entry)
    });
    Ok(Resolved { entries: entries.collect::<Result<_, _>>()?, settings: PhantomData })
}

impl<T: Args> Resolved<T> {
    /// The settings.
    ///
    /// # Errors
    /// When one is missing that has to be said.
    pub(super) fn settings(&self) -> Result<T, ConnectError> {
        let said = self.entries.iter().filter(|entry| !matches!(entry.source, Source::Default | Source::Implied));
        // Those with a place come last, behind what ends the flags.
        let (places, flags): (Vec<_>, Vec<_>) = said.partition(|entry| entry.is_positional);
        let words = flags.iter().flat_map(|entry| entry.words());
        let words = words.chain(["--".into()]).chain(places.iter().flat_map(|entry| entry.words()));
        let matches = command::<T>().try_get_matches_from(words).and_then(|matches| T::from_arg_matches(&matches));
        matches.map_err(|error| match self.entries.iter().find(|entry| entry.is_positional && entry.values.is_empty()) {
            Some(missing) if error.kind() == ErrorKind::MissingRequiredArgument => ConnectError::Setting {
                name: missing.key.clone(),
                reason: format!("it has to be said, on the command line, in {} or in the configuration file", missing.variable),
            },
            _ => ConnectError::Setting { name: "the settings".into(), reason: reason(&error) },
        })
    }

    /// Shows a setting that nobody said anything about with what follows from others.
    pub(super) fn imply(&mut self, key: &str, value: impl Into<OsString>) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key && entry.values.is_empty()) {
            entry.values.push(value.into());
            entry.source = Source::Implied;
        }
    }

    /// All settings as a configuration file, with where each came from.
    pub(super) fn to_toml(&self) -> String {
        let line = |entry: &Entry| {
            let Entry { key, help, values, .. } = entry;
            let mut values = values.iter().map(|value| to_value(&value.to_string_lossy()));
            let value = match entry.is_list {
                true => Some(Value::Array(values.collect())),
                false => values.next(),
            };
            match value {
                Some(value) => format!("# {help}\n{key} = {value} # {}\n", entry.origin()),
                None => format!("# {help}\n# {key} is not set\n"),
            }
        };
        self.entries.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Entry {
    /// Whether the setting can be what is said.
    fn check<T: Args>(&self) -> Result<(), ConnectError> {
        let wrong = |reason| Err(ConnectError::Setting { name: self.source.name_of(&self.key, &self.variable), reason });
        match (&self.source, &*self.values) {
            (Source::Default, _) => return Ok(()),
            (_, [] | [_, _, ..]) if !self.is_list => return wrong("it is one value, not a list".to_owned()),
            _ => {}
        }
        let command = command::<T>().mut_args(|arg| arg.required(false));
        // What has a place may begin with a dash.
        let end_of_flags = self.is_positional.then(|| "--".into());
        match command.try_get_matches_from(end_of_flags.into_iter().chain(self.words())) {
            Ok(_) => Ok(()),
            Err(error) => wrong(reason(&error)),
        }
    }

    /// It as words of a command line.
    fn words(&self) -> Vec<OsString> {
        let word = |value: &OsString| match self.is_positional {
            true => value.clone(),
            false => {
                let mut word = OsString::from(format!("--{}=", self.key));
                word.push(value);
                word
            }
        };
        self.values.iter().map(word).collect()
    }

    /// Where it came from.
    fn origin(&self) -> String {
        match &self.source {
            Source::Default => "default".to_owned(),
            Source::Implied => "follows from the rest".to_owned(),
            Source::File(path) => path.display().to_string().escape_debug().collect(),
            Source::Environment => self.variable.clone(),
            Source::Flags if self.is_positional => "command line".to_owned(),
            Source::Flags => format!("--{}", self.key),
            Source::Program => "program".to_owned(),
        }
    }
}

impl Source {
    /// How an error names a setting.
    fn name_of(&self, key: &str, variable: &str) -> String {
        match self {
            Self::File(path) => format!("{}: `{key}`", path.display()),
            Self::Environment => variable.to_owned(),
            Self::Default | Self::Implied | Self::Flags => format!("--{key}"),
            Self::Program => format!("the worker setting `{key}`"),
        }
    }
}

/// A command whose arguments are the settings and nothing else.
fn command<T: Args>() -> Command {
    let command = Command::new("settings").no_binary_name(true).disable_help_flag(true).disable_version_flag(true);
    // The environment is a layer of its own here.
    T::augment_args(command).mut_args(|arg| arg.env(None::<&'static str>))
}

fn arguments<T: Args>() -> Vec<Arg> {
    let command = T::augment_args(Command::new("settings"));
    command.get_arguments().cloned().collect()
}

/// The flag's name, or what has none by its own.
fn key(arg: &Arg) -> String {
    arg.get_long().unwrap_or_else(|| arg.get_id().as_str()).to_owned()
}

fn variable_of(arg: &Arg) -> String {
    let own = arg.get_env().map(|name| name.to_string_lossy().into_owned());
    own.unwrap_or_else(|| PREFIX.to_owned() + &key(arg).replace('-', "_").to_ascii_uppercase())
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Why clap does not take a value.
fn reason(error: &clap::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    cause.unwrap_or_else(|| error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned())
}

/// A value of TOML as the texts that flags would have; a table is a list of `NAME=VALUE`.
fn texts(value: Value) -> Option<Vec<OsString>> {
    let text = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Datetime(time) => Some(time.to_string()),
        Value::Array(_) | Value::Table(_) => None,
    };
    match value {
        Value::Array(values) => values.into_iter().map(|value| text(value).map(OsString::from)).collect(),
        Value::Table(table) => table.into_iter().map(|(name, value)| Some(format!("{name}={}", text(value)?).into())).collect(),
        value => Some(vec![text(value)?.into()]),
    }
}

/// A number where it is one.
fn to_value(text: &str) -> Value {
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    number.map_or_else(|| Value::String(text.to_owned()), Value::Integer)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use quicsand::Size;

    use super::*;

    /// A few settings.
    #[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
    struct Few {
        /// Where to go
        #[arg(id = "place", env = "FEW_PLACE")]
        place: String,
        /// How much
        #[arg(long, default_value_t = Size(1 << 20))]
        much: Size,
        /// How often
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=9))]
        how_often: Option<u32>,
        /// Of what
        #[arg(long = "of")]
        of: Vec<String>,
    }

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        few: Flags<Few>,
        #[arg(long)]
        other: bool,
    }

    fn flags(words: &[&str]) -> Layer {
        Arguments::try_parse_from([&["few"], words].concat()).expect("flags").few.layer()
    }

    fn environment(variables: &[(&str, &str)]) -> Layer {
        Layer::environment::<Few>(|name| Some(variables.iter().find(|(set, _)| *set == name)?.1.into()))
    }

    fn file(text: &str) -> Layer {
        Layer::parse(Path::new("few.toml"), text).expect("TOML")
    }

    fn settings(layers: &[Layer]) -> Few {
        resolve::<Few>(layers).expect("right").settings().expect("complete")
    }

    #[test]
    fn the_strongest_layer_holds() {
        let few = |place: &str, much, how_often, of: &[&str]| {
            let of = of.iter().map(|&text| text.to_owned()).collect();
            Few { place: place.into(), much: Size(much), how_often, of }
        };
        let text = "place = \"file\"\nmuch = 2\nhow-often = 3\nof = [\"a\", \"b\"]";
        assert_eq!(settings(&[flags(&["here"])]), few("here", 1 << 20, None, &[]));
        assert_eq!(settings(&[file(text), environment(&[]), flags(&[])]), few("file", 2, Some(3), &["a", "b"]));
        let variables = environment(&[
            ("FEW_PLACE", "env"),
            ("QUICSAND_WORKER_MUCH", "3KiB"),
            ("QUICSAND_WORKER_OF", "c, d"),
            ("QUICSAND_WORKER_HOW_OFTEN", ""),
        ]);
        assert_eq!(settings(&[file(text), variables.clone(), flags(&[])]), few("env", 3 << 10, Some(3), &["c", "d"]));
        let flags = flags(&["flag", "--other", "--how-often=9", "--of", "e,f", "--of", "g"]);
        assert_eq!(settings(&[file(text), variables, flags]), few("flag", 3 << 10, Some(9), &["e,f", "g"]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |layer: Layer, expected: &str| {
            let error = resolve::<Few>(&[layer]).expect_err("wrong").to_string();
            assert_eq!(error, expected);
        };
        check(file("colour = 1"), "few.toml: `colour`: there is no such setting; `quicsand worker --help` lists them");
        check(file("much = \"lots\""), "few.toml: `much`: `lots` is no size; write one like 512MiB or 8G");
        check(file("much = [1, 2]"), "few.toml: `much`: it is one value, not a list");
        check(file("how-often = 10"), "few.toml: `how-often`: 10 is not in 1..=9");
        check(
            environment(&[("QUICSAND_WORKER_MUCH", "lots")]),
            "QUICSAND_WORKER_MUCH: `lots` is no size; write one like 512MiB or 8G",
        );
        check(
            Layer::program([("much".into(), "lots".into())]),
            "the worker setting `much`: `lots` is no size; write one like 512MiB or 8G",
        );
        let error = Layer::read(Path::new("/no/where.toml")).expect_err("is not there").to_string();
        assert!(error.starts_with("/no/where.toml: the configuration cannot be read"), "{error}");
        let error = Layer::parse(Path::new("few.toml"), "much =").expect_err("is no TOML").to_string();
        assert!(error.starts_with("few.toml: this is not TOML"), "{error}");
        let error = resolve::<Few>(&[]).expect("right").settings().expect_err("no place").to_string();
        assert_eq!(error, "place: it has to be said, on the command line, in FEW_PLACE or in the configuration file");
    }

    #[test]
    fn a_secret_is_no_setting() {
        let error = resolve::<Few>(&[file("token = \"qs1\"")]).expect_err("a secret").to_string();
        assert!(error.contains("name a file that has it"), "{error}");
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        let layers = [
            file("how-often = 3\nof = { x = 1, y = \"a \\\"b\\\" # c\" }"),
            environment(&[("FEW_PLACE", "-env")]),
            flags(&["--much", "5"]),
        ];
        let resolved = resolve::<Few>(&layers).expect("right");
        let text = resolved.to_toml();
        for line in ["place = \"-env\" # FEW_PLACE", "much = 5 # --much", "how-often = 3 # few.toml", "# How often"] {
            assert!(text.lines().any(|printed| printed == line), "{line} is not in\n{text}");
        }
        assert_eq!(settings(&[file(&text)]), resolved.settings().expect("complete"));
        let mut defaults = resolve::<Few>(&[]).expect("right");
        assert!(defaults.to_toml().contains("# place is not set") && defaults.to_toml().contains("\"1MiB\" # default"));
        defaults.imply("how-often", "7");
        assert!(defaults.to_toml().contains("how-often = 7 # follows from the rest"));
    }
}
