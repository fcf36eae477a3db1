//! What a worker says of itself to calls that ask: its owner's labels and resources, and labels that every worker has of itself. Must
//! not know: calls.

use std::collections::BTreeMap;

use quicsand::{
    ConnectError,
    requirements::{name_fault, value_fault},
};

/// What the labels of processors' features begin with.
const FEATURE: &str = "cpu.";

/// The owner's labels and those that every worker has, by name.
///
/// # Errors
/// When an owner's label could not be asked for, or would hide one that every worker has.
pub(super) fn all(of_owner: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, ConnectError> {
    let mut labels = built_in();
    for (name, value) in of_owner {
        let fault = name_fault(name).or(value_fault(value));
        let reason = match fault {
            Some(fault) => fault.to_owned(),
            None if labels.contains_key(name) || name.starts_with(FEATURE) => {
                let own = labels.get(name).map_or("tells a processor's feature".to_owned(), |own| format!("is `{own}` here"));
                format!("every worker sets this label itself, it {own}; choose another name")
            }
            None => continue,
        };
        return Err(ConnectError::Setting { name: format!("label {name}={value}"), reason });
    }
    labels.extend(of_owner.clone());
    Ok(labels.into_iter().collect())
}

/// The owner's resources, by name.
///
/// # Errors
/// When one could not be asked for.
pub(super) fn resources(of_owner: &BTreeMap<String, u64>) -> Result<Vec<(String, u64)>, ConnectError> {
    let faulty = of_owner.iter().find_map(|(name, amount)| Some((name, amount, name_fault(name)?)));
    match faulty {
        Some((name, amount, fault)) => {
            Err(ConnectError::Setting { name: format!("resource {name}={amount}"), reason: fault.to_owned() })
        }
        None => Ok(of_owner.clone().into_iter().collect()),
    }
}

/// Reads a label: `NAME=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once('=') else { return Err(format!("`{text}` is no label; write NAME=VALUE")) };
    match name_fault(name).or(value_fault(value)) {
        Some(fault) => Err(fault.to_owned()),
        None => Ok((name.to_owned(), value.to_owned())),
    }
}

/// Reads a resource: `NAME=AMOUNT`, at least 1.
pub(super) fn resource(text: &str) -> Result<(String, u64), String> {
    let amount = text.split_once('=').and_then(|(name, amount)| Some((name, amount.parse().ok()?)));
    let Some((name, amount @ 1..)) = amount else {
        return Err(format!("`{text}` is no resource; write NAME=AMOUNT, like gpu=2"));
    };
    match name_fault(name) {
        Some(fault) => Err(fault.to_owned()),
        None => Ok((name.to_owned(), amount)),
    }
}

/// What every worker tells of itself.
fn built_in() -> BTreeMap<String, String> {
    let features = features().into_iter().map(|feature| (format!("{FEATURE}{feature}"), "yes".to_owned()));
    let machine = [("arch", std::env::consts::ARCH), ("os", std::env::consts::OS)];
    features.chain(machine.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

/// Features of this processor, of those that code is commonly made for.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt),* $(,)?) => {
            [$(($name, std::is_x86_feature_detected!($name))),*]
        };
    }
    let known = detected![
        "aes",
        "avx",
        "avx2",
        "avx512bf16",
        "avx512bitalg",
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512f",
        "avx512fp16",
        "avx512ifma",
        "avx512vbmi",
        "avx512vbmi2",
        "avx512vl",
        "avx512vnni",
        "avx512vpopcntdq",
        "avxvnni",
        "bmi1",
        "bmi2",
        "f16c",
        "fma",
        "gfni",
        "lzcnt",
        "pclmulqdq",
        "popcnt",
        "rdrand",
        "rdseed",
        "sha",
        "sse3",
        "sse4.1",
        "sse4.2",
        "ssse3",
        "vaes",
        "vpclmulqdq",
    ];
    known.into_iter().filter(|(_, is_here)| *is_here).map(|(name, _)| name).collect()
}

/// Features of this processor, of those that code is commonly made for.
#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt),* $(,)?) => {
            [$(($name, std::arch::is_aarch64_feature_detected!($name))),*]
        };
    }
    let known = detected![
        "aes", "asimd", "bf16", "crc", "dotprod", "fcma", "fhm", "fp16", "i8mm", "jsconv", "lse", "lse2", "pmull", "rcpc", "rdm",
        "sha2", "sha3", "sm4", "sve", "sve2",
    ];
    known.into_iter().filter(|(_, is_here)| *is_here).map(|(name, _)| name).collect()
}

/// Of other processors none are known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(labels: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        all(&labels).map_err(|error| error.to_string())
    }

    #[test]
    fn the_machine_is_told_beside_what_the_owner_says() {
        let labels = owner(&[("zone", "a")]).expect("good labels");
        let value = |name: &str| labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(value("zone"), Some("a"));
        assert_eq!(value("arch"), Some(std::env::consts::ARCH));
        assert_eq!(value("os"), Some(std::env::consts::OS));
        assert!(labels.is_sorted() && labels.iter().all(|(name, value)| name_fault(name).or(value_fault(value)).is_none()));
        if cfg!(target_arch = "x86_64") {
            assert!(labels.iter().filter(|(name, _)| name.starts_with(FEATURE)).all(|(_, value)| value == "yes"));
            assert_eq!(value("cpu.sse4.2").is_some(), std::is_x86_feature_detected!("sse4.2"));
        }
    }

    #[test]
    fn no_label_hides_what_the_machine_is() {
        let check = |name: &str, value: &str, part: &str| {
            let error = owner(&[("zone", "a"), (name, value)]).expect_err(name);
            assert!(error.starts_with(&format!("label {name}={value}: ")) && error.contains(part), "{error}");
        };
        check("arch", "z80", &format!("it is `{}` here", std::env::consts::ARCH));
        check("os", "plan9", "every worker sets this label itself");
        check("cpu.warp", "yes", "it tells a processor's feature");
        check("my zone", "a", "letters, digits");
        check("rack", "", "1 to 256 bytes");
    }

    #[test]
    fn labels_and_resources_are_read() {
        assert_eq!(label("zone=a=b"), Ok(("zone".into(), "a=b".into())));
        for text in ["zone", "=a", "zone=", "my zone=a"] {
            assert!(label(text).is_err(), "{text}");
        }
        assert_eq!(resource("gpu=2"), Ok(("gpu".into(), 2)));
        for text in ["gpu", "gpu=", "gpu=0", "gpu=-1", "gpu=1.5", "=1", "g p u=1", "gpu=two"] {
            assert!(resource(text).is_err(), "{text}");
        }
    }

    #[test]
    fn resources_have_names_that_can_be_asked_for() {
        let one = |name: &str| resources(&BTreeMap::from([(name.to_owned(), 2)])).map_err(|error| error.to_string());
        assert_eq!(one("gpu"), Ok(vec![("gpu".to_owned(), 2)]));
        assert!(one("big gpu").is_err_and(|error| error.starts_with("resource big gpu=2: ")));
    }
}
