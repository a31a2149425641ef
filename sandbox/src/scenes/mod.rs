//! What a sandbox can hold, one file each: `sandbox NAME -- COMMAND`.

pub mod chat;
pub mod chatkit;
pub mod hub;
pub mod images;

use crate::supervisor::{Service, Spec, Stage};

/// Starts a server of the sandbox that needs no file of its environment.
async fn service(
    stage: &Stage,
    name: &'static str,
    args: Vec<std::ffi::OsString>,
    env: Vec<(String, String)>,
) -> anyhow::Result<Service> {
    let (stdout, stderr) = (stage.path(&format!("{name}.log")), stage.path(&format!("{name}.err")));
    Service::start(Spec { name, command: name, args, env, env_file: None, stdout, stderr }).await
}
