//! What images are made for, in Go's words: `linux/amd64`, `linux/arm/v7`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DescriptorPlatform;

const WORD_MAX_BYTES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("platform {0:?} is neither OS/ARCH nor OS/ARCH/VARIANT, as in linux/arm64 or linux/arm/v7")]
pub struct PlatformError(String);

impl Platform {
    /// This machine's.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.map(Into::into) }
    }

    /// What a descriptor or a configuration says, where it says both an operating system and an architecture in words that
    /// such have.
    pub fn said(os: &str, architecture: &str, variant: Option<&str>) -> Option<Platform> {
        let variant = variant.filter(|variant| !variant.is_empty());
        let words = [os, architecture].into_iter().chain(variant);
        words.into_iter().all(is_word).then(|| normal(os, architecture, variant))
    }

    /// How well an offer fits: 0 not at all; exact variants before unnamed ones.
    pub fn fit(&self, offer: &DescriptorPlatform) -> u8 {
        if offer.os != self.os || offer.architecture != self.architecture {
            return 0;
        }
        match (&self.variant, offer.variant.as_deref()) {
            (None, None) | (None, Some("")) => 3,
            (Some(wanted), Some(offered)) if wanted == offered => 3,
            (_, None) | (_, Some("")) => 2,
            // Any 64-bit ARM runs v8; an older 32-bit variant runs on a newer machine.
            (Some(wanted), Some(offered)) if offered < wanted.as_str() => 1,
            (None, Some(_)) => 1,
            _ => 0,
        }
    }

    pub fn offer(&self) -> DescriptorPlatform {
        DescriptorPlatform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
        }
    }
}

/// Names that mean the same become one, as containerd's and docker's tools have it.
fn normal(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
    let (os, architecture) = (os.to_ascii_lowercase(), architecture.to_ascii_lowercase());
    let variant = variant.map(str::to_ascii_lowercase);
    let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
        ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
        ("x86_64" | "x86-64", other) => ("amd64", other),
        ("i386" | "i686", other) => ("386", other),
        ("aarch64" | "arm64", None | Some("8")) => ("arm64", Some("v8")),
        ("aarch64", other) => ("arm64", other),
        ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
        ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
        ("arm", Some("5")) => ("arm", Some("v5")),
        (architecture, other) => (architecture, other),
    };
    let os = if os == "macos" { "darwin".to_owned() } else { os };
    Platform { os, architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
}

fn is_word(text: &str) -> bool {
    let of_a_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=WORD_MAX_BYTES).contains(&text.len()) && text.bytes().all(of_a_word)
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let words: Vec<&str> = text.split('/').collect();
        let said = match words[..] {
            [os, architecture] => Platform::said(os, architecture, None),
            // One that ends in a slash names no variant, though it seems to.
            [os, architecture, variant] if !variant.is_empty() => Platform::said(os, architecture, Some(variant)),
            _ => None,
        };
        said.ok_or_else(|| PlatformError(text.chars().take(200).collect()))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_platform_are_one() {
        for (text, meant) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/aarch64", "linux/arm64/v8"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("windows/amd64", "windows/amd64"),
            ("linux/vax", "linux/vax"),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), meant, "{text}");
            assert_eq!(platform.to_string().parse(), Ok(platform), "{text}: what is told can be asked for");
        }
    }

    #[test]
    fn what_names_no_platform_is_refused_by_name() {
        let long = format!("linux/{}", "a".repeat(65));
        for text in
            ["", "linux", "/", "linux/", "/amd64", "linux/arm/", "linux/arm/v7/x", "linux/a b", "linux\n/a", &long]
        {
            let error = text.parse::<Platform>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("OS/ARCH/VARIANT"), "{error}");
        }
    }
}
