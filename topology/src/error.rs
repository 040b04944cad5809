//! Why a fleet was refused, and where in its text. Nothing is kept of a fleet that fails.

/// Why a fleet could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// The file could not be read.
    #[error("{file}: {text}; give the path of a fleet file such as topology/fleets/alpha-centauri.toml")]
    Unreadable {
        /// Path as given.
        file: String,
        /// What the system said.
        text: String,
    },
    /// The text is not a fleet; line and column count from 1.
    #[error("{file}:{line}:{column}: {field}: {text}")]
    Invalid {
        /// Name given for the text.
        file: String,
        /// Line of the mistake.
        line: usize,
        /// Column of the mistake, in characters.
        column: usize,
        /// The field that is wrong, as it stands in the file (`host.addresses.site-a`).
        field: String,
        /// What is wrong, and what is allowed.
        text: String,
    },
}

/// A mistake before its place is known as line and column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Offset in the text, in bytes.
    pub at: usize,
    /// The field.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub text: String,
}

impl Wrong {
    /// With its place in `text`, which errors call `file`.
    pub(crate) fn placed(self, file: &str, text: &str) -> FleetError {
        let before = text.get(..self.at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        FleetError::Invalid { file: file.to_owned(), line, column, field: self.field, text: self.text }
    }
}
