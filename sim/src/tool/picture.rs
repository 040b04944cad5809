//! A picture of a run.
use crate::invariants::Name;
use crate::plan::Plan;
use crate::stage::Played;
use crate::trace::{Entry, Keys, Summary};
pub struct Picture;
impl Picture {
    pub fn new(_: Option<&Plan>, _: &[Entry], _: &Keys, _: &Played, _: &Summary) -> Picture {
        Picture
    }
    pub fn to_svg(&self) -> String {
        let _: Option<Name> = None;
        String::new()
    }
}
