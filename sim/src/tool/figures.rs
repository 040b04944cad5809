//! `sim figures`: how quickly deaths are known, and what watching costs, in meshes of many hosts.
//!
//! The table goes to standard output; `--out FOLDER` writes it as `figures.md`, with its plot beside it. What is
//! measured, and how, is [`crate::figures`]'s affair.

use super::{Figures, Io, Wrong};
use crate::figures::{Effort, figures as measure};
use std::io::Write;

/// Measures and tells.
pub fn figures(args: &Figures, io: &mut Io) -> Result<u8, Wrong> {
    let losses: Vec<u32> = args.losses.iter().map(|percent| u32::from(*percent)).collect();
    let found = measure(&args.hosts, &losses, args.seed, if args.quick { Effort::SMALL } else { Effort::FULL });
    let table = found.to_markdown();
    let _ = writeln!(io.out, "{table}");
    if let Some(folder) = &args.out {
        let hint = "give a folder that can be written to with --out";
        let wrong = |error: std::io::Error| Wrong::new(format!("{}: {error}", folder.display()), hint);
        std::fs::create_dir_all(folder).map_err(wrong)?;
        std::fs::write(folder.join("figures.md"), table).map_err(wrong)?;
        std::fs::write(folder.join("figures.svg"), found.to_svg()).map_err(wrong)?;
    }
    Ok(0)
}
