//! A script of the vendor's on top of the root.

use super::driver::Network;
use super::fault::Fault;
use super::protocol::RunJob;
use super::root::Root;
use super::scripts::ScriptRunner;
use crate::layer::package::ServiceGuard;
use crate::tree::{FileTree, NodeKind, TreeDelta, TreePath};
use crate::units::Timestamp;

/// Where the script and its files are while it runs.
const PLACE: &str = "run/consign";
const SCRIPT: &str = "script";

/// Runs the script of `job`, with the files of `input` beside it. What it
/// does to the root stays; what was put there for it goes.
pub(super) fn run(
    root: &mut Root,
    job: &RunJob,
    input: Option<&TreeDelta>,
    source_date: Timestamp,
) -> Result<(), Fault> {
    let place = path(PLACE);
    if root.status(&place)?.is_some() {
        root.remove(&place)?;
    }
    root.make_directories(&place)?;
    if let Some(input) = input {
        lay_out(root, &place, &input.tree)?;
    }
    let script = place.join(SCRIPT.as_bytes()).expect("a plain name");
    root.write(&script, &job.script, 0o755)?;
    for name in ["proc", "dev", "tmp"] {
        root.make_directories(&path(name))?;
    }
    let guard = ServiceGuard::put_up(root)?;
    let network = if job.network {
        Network::On
    } else {
        Network::Off
    };
    let mut runner = ScriptRunner::start(root, source_date.seconds, network)?;
    let program = format!("/{script}");
    // What has no `#!` is for the shell, as everywhere.
    let argv = if job.script.starts_with(b"#!") {
        vec![program]
    } else {
        vec!["/bin/sh".into(), program]
    };
    let run = runner.run_in(&format!("/{PLACE}"), argv, job.environment.clone())?;
    runner.end()?;
    if !run.is_success {
        return Err(Fault::Run {
            status: run.status,
            output: run.output,
        });
    }
    root.forget();
    guard.take_down(root)?;
    root.remove(&place)
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).expect("a relative path")
}

/// Files, directories and links of `tree`, below `place`.
fn lay_out(root: &mut Root, place: &TreePath, tree: &FileTree) -> Result<(), Fault> {
    for (inner, _, node) in tree.iter().filter(|(inner, _, _)| !inner.is_root()) {
        let mut target = place.clone();
        for component in inner.components() {
            target = target.join(component).expect("a component of a path");
        }
        match &node.kind {
            NodeKind::Directory => root.place_directory(&target, &node.meta)?,
            NodeKind::File(content) => root.place_content(&target, content, &node.meta)?,
            NodeKind::Symlink(link) => root.place_symlink(&target, link, &node.meta)?,
            kind => root.place_special(&target, kind, &node.meta)?,
        }
    }
    Ok(())
}
