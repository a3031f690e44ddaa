//! Addresses and networks: Kubernetes' libraries. IPv4 addresses in IPv6 form, zones and leading zeros are not taken.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Sig::*;
use super::{CIDR, Function, IP, call, method};
use crate::cel::price::Price;
use crate::cel::value::{Fault, Outcome, Value, no_such_overload};

/// Nothing that is an address or a network is longer.
const TEXT_MAX_BYTES: usize = 64;

const ASKS: &[super::Overload] = &[method(&[IP], Bool)];

const fn asks(name: &'static str, run: super::Run) -> Function {
    Function { name, overloads: ASKS, price: Price::Nominal, run }
}

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "ip",
        overloads: &[call(&[String], IP), method(&[CIDR], IP)],
        price: Price::Scan,
        run: |_, args| match args {
            [Value::String(text)] => parse_ip(text).map(Value::Ip),
            [Value::Cidr(net)] => Ok(Value::Ip(net.addr())),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "isIP",
        overloads: &[call(&[String], Bool)],
        price: Price::Scan,
        run: |_, args| match args {
            [Value::String(text)] => Ok(Value::Bool(parse_ip(text).is_ok())),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "ip.isCanonical",
        overloads: &[call(&[String], Bool)],
        price: Price::ScanTwice,
        run: |_, args| match args {
            [Value::String(text)] => Ok(Value::Bool(parse_ip(text)?.to_string() == **text)),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "family",
        overloads: &[method(&[IP], Int)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Ip(address)] => Ok(Value::Int(if address.is_ipv4() { 4 } else { 6 })),
            _ => no_such_overload(),
        },
    },
    asks("isUnspecified", |_, args| of_ip(args, |ip| ip.is_unspecified())),
    asks("isLoopback", |_, args| of_ip(args, |ip| ip.is_loopback())),
    asks("isLinkLocalMulticast", |_, args| of_ip(args, is_link_local_multicast)),
    asks("isLinkLocalUnicast", |_, args| of_ip(args, is_link_local_unicast)),
    asks("isGlobalUnicast", |_, args| of_ip(args, is_global_unicast)),
    Function {
        name: "cidr",
        overloads: &[call(&[String], CIDR)],
        price: Price::Scan,
        run: |_, args| match args {
            [Value::String(text)] => parse_cidr(text).map(Value::Cidr),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "isCIDR",
        overloads: &[call(&[String], Bool)],
        price: Price::Scan,
        run: |_, args| match args {
            [Value::String(text)] => Ok(Value::Bool(parse_cidr(text).is_ok())),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "containsIP",
        overloads: &[method(&[CIDR, String], Bool), method(&[CIDR, IP], Bool)],
        price: Price::ContainsIp,
        run: |_, args| match args {
            [Value::Cidr(net), Value::Ip(address)] => Ok(Value::Bool(net.contains(address))),
            [Value::Cidr(net), Value::String(text)] => Ok(Value::Bool(net.contains(&parse_ip(text)?))),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "containsCIDR",
        overloads: &[method(&[CIDR, String], Bool), method(&[CIDR, CIDR], Bool)],
        price: Price::ContainsCidr,
        run: |_, args| match args {
            [Value::Cidr(net), Value::Cidr(inner)] => Ok(Value::Bool(holds(net, inner))),
            [Value::Cidr(net), Value::String(text)] => Ok(Value::Bool(holds(net, &parse_cidr(text)?))),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "masked",
        overloads: &[method(&[CIDR], CIDR)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Cidr(net)] => Ok(Value::Cidr(net.trunc())),
            _ => no_such_overload(),
        },
    },
    Function {
        name: "prefixLength",
        overloads: &[method(&[CIDR], Int)],
        price: Price::Nominal,
        run: |_, args| match args {
            [Value::Cidr(net)] => Ok(Value::Int(i64::from(net.prefix_len()))),
            _ => no_such_overload(),
        },
    },
];

fn of_ip<'a>(args: &[Value<'a>], test: fn(IpAddr) -> bool) -> Outcome<'a> {
    match args {
        [Value::Ip(address)] => Ok(Value::Bool(test(*address))),
        _ => no_such_overload(),
    }
}

fn fault<T>(message: std::string::String) -> Result<T, Fault> {
    Err(Fault::Raised(message.into()))
}

fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX_BYTES)]
}

fn parse_ip(text: &str) -> Result<IpAddr, Fault> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let parsed = (address.len() <= TEXT_MAX_BYTES).then(|| address.parse::<IpAddr>().ok()).flatten();
    match parsed {
        None => fault(format!(
            "IP Address {0:?} parse error during conversion from string: ParseAddr({0:?}): unable to parse IP",
            shown(text)
        )),
        Some(_) if zone.is_some() => fault(format!("IP address {:?} with zone value is not allowed", shown(text))),
        Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            fault(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        Some(address) => Ok(address),
    }
}

fn parse_cidr(text: &str) -> Result<IpNet, Fault> {
    let parsed = || {
        let (address, length) = text.split_once('/').filter(|_| text.len() <= TEXT_MAX_BYTES)?;
        let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let length = (digits && (length == "0" || !length.starts_with('0'))).then(|| length.parse::<u8>().ok())??;
        match address.parse::<IpAddr>().ok()? {
            IpAddr::V4(v4) => Ipv4Net::new(v4, length).ok().map(IpNet::V4),
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => Ipv6Net::new(v6, length).ok().map(IpNet::V6),
            IpAddr::V6(_) => None,
        }
    };
    parsed().map_or_else(
        || {
            let shown = shown(text);
            fault(format!(
                "network address parse error during conversion from string: netip.ParsePrefix({shown:?}): no network"
            ))
        },
        Ok,
    )
}

/// Whether the one lies within the other.
fn holds(net: &IpNet, inner: &IpNet) -> bool {
    net.prefix_len() <= inner.prefix_len() && net.contains(&inner.addr())
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// As Go's netip has it: private addresses are global ones too.
fn is_global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !broadcast && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !is_link_local_unicast(ip)
}
