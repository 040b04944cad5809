//! `mesh why BUILD`: where a build stands, what came of each try, whose fault that is, and what to do. Pure.

use super::show::{plain, table};
use crate::api::healing::{BuildWhy, TryWhy};

pub(super) fn text(r: &BuildWhy) -> String {
    let mut out = vec![format!("{} {} is {}", r.build, plain(&r.name), r.state.word())];
    if !r.because.is_empty() {
        out.push(format!("  because: {}", plain(&r.because)));
    }
    if !r.tries.is_empty() {
        out.push("what was tried:".to_owned());
        let row = |t: &TryWhy| {
            let charged = t.charged.as_deref().map(|c| format!("; {}", plain(c))).unwrap_or_default();
            vec![format!("  {}", t.id), plain(&t.host), format!("{}{charged}", plain(&t.came))]
        };
        out.push(table(&r.tries.iter().map(row).collect::<Vec<_>>()));
    }
    // Said already where it stands for that reason.
    out.extend(r.blame.iter().filter(|b| **b != r.because).map(|b| format!("blame: {}", plain(b))));
    out.extend(r.next.iter().map(|next| format!("next: {}", plain(next))));
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tend::tests::sample_why_build;
    use mesh::build::BuildId;

    #[test]
    fn a_held_package_is_told_with_its_evidence() {
        let want = "\
b7 poison is queued
  because: poison is held: its own command fails, on bert, carl (b7.1, b7.2)
what was tried:
  b7.1  bert  failed while its command ran: `make` exited with 2; that is the package's fault
  b7.2  carl  failed while its command ran: `make` exited with 2; that is the package's fault
next: `mesh logs b7` shows how poison fails; mend it and submit it anew";
        assert_eq!(text(&sample_why_build(BuildId(7))), want);
    }
}
