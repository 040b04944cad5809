//! The program `mesh-guard`: what a host's own sshd runs when its daemon does not answer. `authkeys` says whom sshd lets in,
//! `run` holds one hearing. Both are in [`node::fallback`]; here are the words, the record of what was refused, and the end
//! of a guard that hangs.

use node::fallback::offered::{key_of, line, may_bring};
use node::fallback::session::{Guardhouse, SessionError, papers};
use node::machine::act;
use node::state_folder::StateFolder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

const USAGE: &str =
    "usage: mesh-guard run --dir FOLDER [--peer ID]\n       mesh-guard authkeys --dir FOLDER TYPE KEY\n";
/// Words that make no sense.
const EXIT_USAGE: u8 = 64;
/// Seconds after which a hearing that has not ended never will: a frozen daemon may hold the lock on the papers.
const HANGS_S: u32 = 20;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["authkeys", "--dir", folder, kind, key] => authkeys(folder, kind, key),
        ["run", "--dir", folder] => run(folder, "somebody"),
        ["run", "--dir", folder, "--peer", peer] => run(folder, peer),
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Nothing is said of a key that may not enter: sshd asks for every key that anybody offers.
fn authkeys(folder: &str, kind: &str, key: &str) -> ExitCode {
    let Some(key) = key_of(kind, key) else { return ExitCode::SUCCESS };
    let known = StateFolder::open(Path::new(folder))
        .map_err(SessionError::from)
        .and_then(|folder| Ok(papers(&folder)?.1.known()?));
    let program = std::env::current_exe();
    match (known, program) {
        (Ok(known), Ok(program)) => {
            if may_bring(&known, &key) {
                println!("{}", line(&program.to_string_lossy(), folder, &key));
            }
            ExitCode::SUCCESS
        }
        (Err(error), _) => failed(&error),
        (_, Err(error)) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("mesh-guard: {error}");
    ExitCode::FAILURE
}

fn run(folder: &str, peer: &str) -> ExitCode {
    // The session may end while we act, and a hang-up is no reason to stop half-way.
    // SAFETY: neither call touches memory of ours. A group leader has no need of setsid's success.
    unsafe {
        libc::setsid();
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::alarm(HANGS_S);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let code = runtime.block_on(hold(folder, peer));
    runtime.shutdown_background(); // whatever still reads our standard input is left behind
    ExitCode::from(code)
}

/// Whatever sshd gave us, pipe or socket.
fn pipe(end: BorrowedFd<'_>) -> io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(std::fs::File::from(end.try_clone_to_owned()?)))
}

async fn hold(folder: &str, peer: &str) -> u8 {
    let opened = StateFolder::open(Path::new(folder)).map_err(SessionError::from).and_then(|f| Guardhouse::open(&f));
    let house = match opened {
        Ok(house) => house,
        Err(error) => {
            act::record(&format!("an order brought by {peer} was not heard: {error}"));
            eprintln!("mesh-guard: {error}");
            return 1;
        }
    };
    let heard = match (pipe(std::io::stdin().as_fd()), pipe(std::io::stdout().as_fd())) {
        (Ok(input), Ok(output)) => house.hear(&mut input.compat(), &mut output.compat_write()).await,
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
    };
    // SAFETY: touches no memory of ours. What was taken on is done, however long the command takes.
    unsafe { libc::alarm(0) };
    match heard {
        Ok(None) => 0,
        Ok(Some(licence)) => match house.act(&licence).await {
            Ok(()) => 0,
            Err(error) => {
                act::record(&format!("{}: could not be done: {error}", licence.order().id));
                1
            }
        },
        Err(error) => {
            act::record(&format!("an order brought by {peer} was refused: {error}"));
            1
        }
    }
}
