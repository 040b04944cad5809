//! The file's own form, before its names and addresses have been checked against each other. On to [`crate::check`].

use crate::error::Wrong;
use crate::fleet::{Dependence, NetworkKind, Ports, Role, Service};
use ipnet::Ipv4Net;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fleet {
    pub name: String,
    #[serde(default)]
    pub network: Vec<Network>,
    #[serde(default)]
    pub masquerade: Vec<Masquerade>,
    #[serde(default)]
    pub route: Vec<Route>,
    #[serde(default)]
    pub forward: Vec<Forward>,
    #[serde(default)]
    pub host: Vec<Host>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network {
    pub name: Spanned<String>,
    pub cidr: Spanned<Ipv4Net>,
    #[serde(default)]
    pub kind: NetworkKind,
    pub round_trip_ms: Option<Spanned<u64>>,
    pub loss_per_mille: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Masquerade {
    pub router: Spanned<String>,
    pub inside: Spanned<String>,
    pub outside: Spanned<String>,
    pub address: Spanned<Ipv4Addr>,
    pub mapping: Option<Dependence>,
    pub filtering: Option<Dependence>,
    #[serde(default)]
    pub ports: Ports,
    pub round_trip_ms: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    pub router: Spanned<String>,
    pub from: Spanned<String>,
    pub to: Spanned<String>,
    pub round_trip_ms: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forward {
    pub router: Spanned<String>,
    pub outside: Spanned<String>,
    pub port: Spanned<u16>,
    pub to: Spanned<String>,
    pub to_port: Option<Spanned<u16>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    pub name: Spanned<String>,
    #[serde(default)]
    pub addresses: BTreeMap<String, Spanned<Ipv4Addr>>,
    pub shares: Option<Spanned<String>>,
    pub port: Option<Spanned<u16>>,
    pub cores: Spanned<u32>,
    pub role: Role,
    #[serde(default)]
    pub protected: bool,
    pub service: Option<Service>,
}

/// Reads the form alone.
pub(crate) fn parse(text: &str) -> Result<Fleet, Wrong> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.get(..at).map_or(0, |before| before.rfind('\n').map_or(0, |newline| newline + 1));
        // The key of that line says more than "expected u32" does.
        let line = text[line..].lines().next().unwrap_or_default();
        let key = line.split('=').next().unwrap_or_default().trim();
        let field = if key.is_empty() { "fleet" } else { key };
        Wrong { at, field: field.into(), text: error.message().to_owned() }
    })
}
