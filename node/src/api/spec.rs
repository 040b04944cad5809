//! A build as JSON, every field by name, and the way to and from [`BuildSpec`]. Checks nothing:
//! [`BuildSpec::check`] does, at the [`super::server`].

use super::types::text;
use mesh::build::{BlobId, BuildSpec, Input, InputKind, Sandbox};
use serde::{Deserialize, Serialize};

/// A build as JSON, every field by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SpecJson {
    pub name: String,
    pub command: Vec<String>,
    #[serde(default)]
    pub inputs: Vec<InputJson>,
    #[serde(default)]
    pub outputs: Vec<String>,
    #[serde(default)]
    pub changed_only: bool,
    #[serde(default)]
    pub env: Vec<(String, String)>,
    #[serde(default)]
    pub needs: Vec<String>,
    #[serde(default = "one")]
    pub cores: u32,
    #[serde(default)]
    pub memory_mib: u64,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default = "hour")]
    pub timeout_s: u64,
    #[serde(default)]
    pub network: bool,
    /// Whether it runs without a sandbox.
    #[serde(default)]
    pub unsandboxed: bool,
    #[serde(default)]
    pub retries: u32,
    #[serde(default = "one")]
    pub confirm: u32,
}

fn one() -> u32 {
    1
}
fn hour() -> u64 {
    3_600
}

/// An input as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct InputJson {
    pub path: String,
    #[serde(with = "text")]
    pub blob: BlobId,
    pub bytes: u64,
    /// Whether it is an archive to unpack.
    pub tar: bool,
}

impl From<&BuildSpec> for SpecJson {
    fn from(s: &BuildSpec) -> Self {
        let input =
            |i: &Input| InputJson { path: i.path.clone(), blob: i.blob, bytes: i.bytes, tar: i.kind == InputKind::Tar };
        SpecJson {
            name: s.name.clone(),
            command: s.command.clone(),
            inputs: s.inputs.iter().map(input).collect(),
            outputs: s.outputs.clone(),
            changed_only: s.changed_only,
            env: s.env.clone(),
            needs: s.needs.clone(),
            cores: s.cores,
            memory_mib: s.memory_mib,
            tags: s.tags.clone(),
            timeout_s: s.timeout_s,
            network: s.network,
            unsandboxed: s.sandbox == Sandbox::None,
            retries: s.retries,
            confirm: s.confirm.into(),
        }
    }
}

impl From<SpecJson> for BuildSpec {
    fn from(s: SpecJson) -> Self {
        let input = |i: InputJson| Input {
            path: i.path,
            blob: i.blob,
            bytes: i.bytes,
            kind: if i.tar { InputKind::Tar } else { InputKind::File },
        };
        BuildSpec {
            name: s.name,
            command: s.command,
            inputs: s.inputs.into_iter().map(input).collect(),
            outputs: s.outputs,
            changed_only: s.changed_only,
            env: s.env,
            needs: s.needs,
            cores: s.cores,
            memory_mib: s.memory_mib,
            tags: s.tags,
            timeout_s: s.timeout_s,
            network: s.network,
            sandbox: if s.unsandboxed { Sandbox::None } else { Sandbox::Bubblewrap },
            retries: s.retries,
            confirm: u8::try_from(s.confirm).unwrap_or(u8::MAX), // out of bounds stays so: `check` refuses it
        }
    }
}
