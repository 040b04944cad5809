//! What a daemon knows of a mesh that is well, for tests to spoil.

use crate::api::types::{HostFacts, HostState, MeshFacts, PathKind, VERSION};

/// A host of which nothing bad is known.
pub(super) fn host(name: &str) -> HostFacts {
    HostFacts {
        name: name.into(),
        state: HostState::Alive,
        why: String::new(),
        path: PathKind::Direct,
        behind: vec![],
        relays: false,
        clock_ms: Some(20),
        program: "0.1.0".into(),
        boot_enabled: Some(true),
    }
}

/// A mesh of four, seen from the first.
pub(super) fn well() -> MeshFacts {
    MeshFacts {
        version: VERSION,
        host: "a".into(),
        up_ms: 600_000,
        leader: Some("a".into()),
        signers: 2,
        reached: true,
        listening: vec![],
        hosts: vec![
            HostFacts { path: PathKind::Own, clock_ms: None, relays: true, ..host("a") },
            host("b"),
            host("c"),
            host("d"),
        ],
        ending: vec![],
        warnings: vec![],
    }
}
