//! Values of options: ports, networks, services, times, sizes, fates and causes.

use std::{ffi::OsStr, marker::PhantomData, net::IpAddr, ops::RangeInclusive, str::FromStr, time::Duration};

use clap::{
    Arg, Command,
    builder::{PossibleValue, StringValueParser, TypedValueParser},
};

use crate::finding::outcome::Words;

/// A port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(0) | Err(_) => Err(format!(
                "`{text}` is not a port: give 1 to 65535, or a range such as 30000-30100"
            )),
            Ok(port) => Ok(port),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(format!(
                "the range {text} runs backwards: give the lower port first"
            ));
        }
        Ok(Self(first..=last))
    }
}

/// A service, as `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(pub String);

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!(
                "`{text}` is not a service: give NAMESPACE/NAME, such as default/web"
            )),
        }
    }
}

/// A network: an address and the length of its prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(pub IpAddr, pub u8);

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a network: give an address or a prefix such as 10.0.0.0/8");
        let (ip, length) = text
            .split_once('/')
            .map_or((text, None), |(ip, length)| (ip, Some(length)));
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(length) => length
                .parse()
                .ok()
                .filter(|&length| length <= longest)
                .ok_or_else(wrong)?,
        };
        Ok(Self(ip, length))
    }
}

/// Parses a number of seconds, which may have a fraction.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("`{text}` is not a number of seconds"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(patience) if (0.01..=3600.0).contains(&seconds) => Ok(patience),
        _ => Err(format!("{text} seconds is out of range: give 0.01 to 3600")),
    }
}

/// Parses a time with a unit; without a unit it is in seconds.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: give 90, 90s, 15m, 2h or 1d");
    let (number, unit) = match text.find(|letter: char| letter.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let unit = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}

/// Parses the time that a run lasts, as [`span`] does. It cannot be 0.
pub(super) fn lasting(text: &str) -> Result<Duration, String> {
    match span(text)? {
        Duration::ZERO => Err("a run of no time records nothing: give 90, 15m or 2h".to_owned()),
        time => Ok(time),
    }
}

/// Parses a size; without a unit it is in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: give bytes, 512KiB, 64MiB or 1GiB");
    let (number, unit) = match text.find(|letter: char| letter.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    if bytes < SMALLEST {
        return Err(format!("{text} is too small: give at least 64KiB"));
    }
    Ok(bytes)
}

/// The smallest file size, in bytes: a smaller file would hold little besides its header.
const SMALLEST: u64 = 64 << 10;

/// Parses the words of an option, and lists them for completion.
#[derive(Clone, Debug)]
pub(crate) struct WordParser<T>(PhantomData<fn() -> T>);

impl<T> WordParser<T> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Words + Clone + Send + Sync + 'static> TypedValueParser for WordParser<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let parser = StringValueParser::new().try_map(|text| text.parse::<T>());
        parser.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(T::words().into_iter().map(PossibleValue::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_or_ranges() {
        assert_eq!("30080".parse(), Ok(Ports(30080..=30080)));
        assert_eq!("30000-30100".parse(), Ok(Ports(30000..=30100)));
        for wrong in ["", "0", "65536", "http", "2-1", "1-", "-1"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn services_have_a_namespace() {
        assert_eq!("shop/web".parse(), Ok(ServiceName("shop/web".to_owned())));
        for wrong in ["web", "/web", "shop/", "a/b/c", ""] {
            assert!(wrong.parse::<ServiceName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn networks_have_a_prefix_that_fits() {
        assert_eq!("10.0.0.0/8".parse(), Ok(Cidr(IpAddr::from([10, 0, 0, 0]), 8)));
        assert_eq!("10.0.0.1".parse(), Ok(Cidr(IpAddr::from([10, 0, 0, 1]), 32)));
        for wrong in ["10.0.0.0/33", "10.0.0/8", "x", "10.0.0.0/"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_run_lasts_longer_than_nothing() {
        assert_eq!(lasting("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "0s", "0.0m", "soon"] {
            assert!(lasting(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(span("90"), Ok(Duration::from_secs(90)));
        assert_eq!(span("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(span("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1g"), Ok(1 << 30));
        assert_eq!(size("65536"), Ok(65_536));
        for wrong in ["", "m", "-1", "1x", "1.2.3", "99999999999999999999"] {
            assert!(span(wrong).is_err() || wrong.len() > 10, "{wrong}");
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(size("1KiB").is_err());
    }
}
