//! What a call asks of a worker: labels and amounts of named resources. Owns: their form and its bounds. Must not know: workers, or
//! what becomes of a call that nobody can run.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// Labels and resources that one call asks for, at most.
const MAX_ASKED: usize = 32;
/// Bytes of a name, at most.
const NAME_BYTES: usize = 64;
/// Bytes of a label's value, at most.
const VALUE_BYTES: usize = 256;

/// A label, for calls a wanted one: name and value.
type Label = (Cow<'static, str>, Cow<'static, str>);
/// A named resource, for calls a wanted amount of it.
type Resource = (Cow<'static, str>, u64);

/// Labels that a worker must have to run a call, and amounts of its named resources that the call takes while it is there.
///
/// Both are sorted by name, and a name is there once, so that equal requirements are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirements {
    labels: Cow<'static, [Label]>,
    resources: Cow<'static, [Resource]>,
}

impl Requirements {
    /// Every worker will do.
    pub const NONE: Self = Self { labels: Cow::Borrowed(&[]), resources: Cow::Borrowed(&[]) };

    /// For the macros' output, which sorts them and has checked them.
    #[doc(hidden)]
    #[must_use]
    pub const fn of(labels: &'static [Label], resources: &'static [Resource]) -> Self {
        Self { labels: Cow::Borrowed(labels), resources: Cow::Borrowed(resources) }
    }

    /// Asks for a label with that value, and no longer for another value of the same label.
    pub fn set_label(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) {
        set(self.labels.to_mut(), name.into(), value.into());
    }

    /// Asks for so much of a resource, and no longer for another amount of it. With 0 none of it is asked for.
    pub fn set_resource(&mut self, name: impl Into<Cow<'static, str>>, amount: u64) {
        let resources = self.resources.to_mut();
        set(resources, name.into(), amount);
        resources.retain(|(_, amount)| *amount > 0);
    }

    /// The labels, by name.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The resources, by name.
    pub fn resources(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        self.resources.iter().map(|(name, amount)| (&**name, *amount))
    }

    /// Whether every worker will do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.resources.is_empty()
    }

    /// What is wrong with them, if they cannot be sent.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let (labels, resources) = (&self.labels, &self.resources);
        if labels.len() + resources.len() > MAX_ASKED {
            return Some("more than 32 labels and resources are asked for");
        }
        let ascends =
            labels.windows(2).all(|pair| pair[0].0 < pair[1].0) && resources.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !ascends {
            return Some("labels or resources are not in order");
        }
        if resources.iter().any(|(_, amount)| *amount == 0) {
            return Some("none of a resource is asked for");
        }
        let names = labels.iter().map(|(name, _)| name).chain(resources.iter().map(|(name, _)| name));
        let faulty_name = names.into_iter().find_map(|name| name_fault(name));
        faulty_name.or_else(|| labels.iter().find_map(|(_, value)| value_fault(value)))
    }
}

/// What is wrong with the name of a label or resource, if anything is.
#[must_use]
pub fn name_fault(name: &str) -> Option<&'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let is_good = !name.is_empty() && name.len() <= NAME_BYTES && name.chars().all(fits);
    (!is_good).then_some("the name of a label or resource has 1 to 64 letters, digits and `-_./`")
}

/// What is wrong with a label's value, if anything is.
#[must_use]
pub fn value_fault(value: &str) -> Option<&'static str> {
    let is_good = !value.is_empty() && value.len() <= VALUE_BYTES && !value.chars().any(char::is_control);
    (!is_good).then_some("the value of a label has 1 to 256 bytes, all in one line")
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.labels().map(|(name, value)| format!("{name}={value}"));
        let resources = self.resources().map(|(name, amount)| format!("{name}={amount}"));
        let all: Vec<_> = labels.chain(resources).collect();
        f.write_str(if all.is_empty() { "nothing" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}

/// Puts a value where its name belongs.
fn set<T>(sorted: &mut Vec<(Cow<'static, str>, T)>, name: Cow<'static, str>, value: T) {
    match sorted.binary_search_by(|(known, _)| known.cmp(&name)) {
        Ok(at) => sorted[at].1 = value,
        Err(at) => sorted.insert(at, (name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_name_holds() {
        let mut asked = Requirements::NONE;
        asked.set_label("zone", "a");
        asked.set_resource("gpu", 1);
        asked.set_resource("disk", 10);
        asked.set_label("arch", "x86_64");
        asked.set_label("zone", "b");
        asked.set_resource("gpu", 2);
        assert_eq!(asked.to_string(), "arch=x86_64, zone=b, disk=10, gpu=2");
        assert_eq!(asked.fault(), None);
        asked.set_resource("disk", 0);
        asked.set_resource("gpu", 0);
        assert_eq!(asked.to_string(), "arch=x86_64, zone=b");
        assert_eq!(Requirements::NONE.to_string(), "nothing");
    }

    #[test]
    fn a_constant_equals_what_is_made() {
        const ASKED: Requirements =
            Requirements::of(&[(Cow::Borrowed("zone"), Cow::Borrowed("a"))], &[(Cow::Borrowed("gpu"), 1)]);
        let mut made = Requirements::NONE;
        made.set_resource("gpu".to_owned(), 1);
        made.set_label("zone".to_owned(), "a".to_owned());
        assert_eq!(made, ASKED);
        let bytes = postcard::to_allocvec(&ASKED).expect("encodes");
        assert_eq!(postcard::from_bytes::<Requirements>(&bytes), Ok(made));
        assert_eq!(postcard::to_allocvec(&Requirements::NONE).expect("encodes"), [0, 0], "calls without any pay two bytes");
    }

    #[test]
    fn faults_are_found() {
        let check = |labels: &[(&'static str, &'static str)], resources: &[(&'static str, u64)], expected: Option<&str>| {
            let labels = labels.iter().map(|&(name, value)| (name.into(), value.into())).collect();
            let resources = resources.iter().map(|&(name, amount)| (name.into(), amount)).collect();
            let fault = Requirements { labels, resources }.fault();
            assert_eq!(fault.is_some(), expected.is_some(), "{fault:?}");
            assert!(fault.unwrap_or_default().contains(expected.unwrap_or_default()), "{fault:?}");
        };
        check(&[], &[], None);
        check(&[("cpu.avx512f", "yes"), ("a/b-c_d", "Zürich 2")], &[("gpu", 1)], Some("not in order"));
        check(&[("a/b-c_d", "Zürich 2"), ("cpu.avx512f", "yes")], &[("gpu", 1)], None);
        check(&[("a", "1"), ("a", "2")], &[], Some("not in order"));
        check(&[], &[("gpu", 1), ("gpu", 1)], Some("not in order"));
        check(&[], &[("gpu", 0)], Some("none of"));
        check(&[("", "1")], &[], Some("the name"));
        check(&[], &[("g p u", 1)], Some("the name"));
        check(&[(&"n".repeat(65).leak()[..], "1")], &[], Some("the name"));
        check(&[("zone", "")], &[], Some("the value"));
        check(&[("zone", "a\nb")], &[], Some("the value"));
        check(&[("zone", &"v".repeat(257).leak()[..])], &[], Some("the value"));
        let names: Vec<&'static str> = (10..43).map(|i| &*format!("n{i}").leak()).collect();
        check(&names[..32].iter().map(|&name| (name, "1")).collect::<Vec<_>>(), &[], None);
        check(&names[..32].iter().map(|&name| (name, "1")).collect::<Vec<_>>(), &[("gpu", 1)], Some("more than 32"));
    }
}
