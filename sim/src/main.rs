//! The program `sim`: a mesh in virtual time. All of it is in [`sim::tool`].

use sim::tool::{self, Io, Stages};
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tool::main(std::env::args_os(), &Stages::SHIPPED, &mut Io::of_the_process()))
}
