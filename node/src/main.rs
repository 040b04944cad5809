//! The program `mesh`: daemon and command line. All of it is in [`node::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(node::cli::main(local::Unwired, std::env::args_os()))
}

/// Until the driver is here, the commands that need no running daemon say so.
mod local {
    use node::cli::{Failure, InitArgs, InitDone, JoinArgs, JoinDone, Local, Ready};
    use node::config::Config;
    use node::state_folder::{FolderLock, StateFolder};
    use tokio::sync::oneshot;
    use tokio_util::sync::CancellationToken;

    pub struct Unwired;

    #[async_trait::async_trait]
    impl Local for Unwired {
        fn init(&self, _: &StateFolder, _: InitArgs) -> Result<InitDone, Failure> {
            Err(Failure::new("this build of mesh has no driver"))
        }
        async fn join(&self, _: &StateFolder, _: &Config, _: JoinArgs) -> Result<JoinDone, Failure> {
            Err(Failure::new("this build of mesh has no driver"))
        }
        async fn serve(
            &self,
            _: StateFolder,
            _: FolderLock,
            _: Config,
            _: oneshot::Sender<Ready>,
            _: CancellationToken,
        ) -> Result<(), Failure> {
            Err(Failure::new("this build of mesh has no driver"))
        }
    }
}
