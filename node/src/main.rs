//! The program `mesh`: daemon and command line. All of it is in [`node::cli`] and [`node::driver`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(node::cli::main(node::driver::HostNode, std::env::args_os()))
}
