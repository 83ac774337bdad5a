//! `__sandbox`: the process that unpacks, asks for scripts to be run, scans
//! and writes the tar.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use super::driver::{Driver, Network};
use super::enter::{become_root, die_with_parent, enter, mount_memory};
use super::fault::Fault;
use super::lay::lay;
use super::protocol::{self, PackagesJob, Reply, Request, RunJob, ToolsJob};
use super::root::{Root, remove_folder};
use super::scan::{Scan, Stamps, stamp_all};
use super::scripts::ScriptRunner;
use crate::layer::package;
use crate::layer::tar::{TarError, TarSum, read_delta};
use crate::tree::{Blob, FileTree, TreeDelta, TreePath};
use crate::units::Timestamp;

/// Longer than the kernel's clock tick, by which it stamps changes.
const TICK: std::time::Duration = std::time::Duration::from_millis(20);

/// How much the tools' layer stands back.
const TOOLS_NICENESS: i32 = 10;

/// Answers requests until the input ends.
pub(super) fn run() -> ExitCode {
    let mut input = io::stdin().lock();
    let output = Mutex::new(io::stdout());
    let answer = |reply: &Reply| {
        let mut output = output
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        protocol::send(&mut *output, reply)
    };
    let driver = std::env::args().nth(2);
    let Some(driver) = driver.and_then(|name| Driver::parse(&name)) else {
        return ExitCode::FAILURE;
    };
    if die_with_parent().is_err() || answer(&enter(driver)).is_err() {
        return ExitCode::FAILURE;
    }
    let mut worker: Option<Worker> = None;
    loop {
        let request = match protocol::receive::<Request>(&mut input) {
            Ok(Some(request)) => request,
            Ok(None) => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::FAILURE,
        };
        let is_end = matches!(request, Request::End);
        let result = match request {
            Request::Take { path, size } => take_file(&path, size, &mut input),
            Request::Give(path) => give_file(&path, &output),
            request => serve(request, driver, &mut worker, &|reply| drop(answer(&reply))),
        };
        let has_failed = result.is_err();
        if has_failed && let Some(worker) = worker.take() {
            // The error that led here is the one to tell.
            drop(worker.remove());
        }
        let said = answer(&result.unwrap_or_else(Reply::Failed));
        if has_failed || is_end || said.is_err() {
            return ExitCode::SUCCESS;
        }
    }
}

/// Takes a file out of the input: of requests to a machine, which sees no
/// file of the host.
fn take_file(path: &Path, size: u64, input: &mut impl io::BufRead) -> Result<Reply, Fault> {
    let taken = || -> io::Result<Reply> {
        let mut file = std::fs::File::create_new(path)?;
        let count = io::copy(&mut io::Read::take(input, size), &mut file)?;
        if count < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Reply::Done)
    };
    taken().map_err(|error| Fault::system("write", path.display().to_string(), error))
}

/// Answers with the file's size and its bytes; the answer to the request
/// itself comes after them.
fn give_file(path: &Path, output: &Mutex<io::Stdout>) -> Result<Reply, Fault> {
    let given = || -> io::Result<Reply> {
        let mut file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        let mut output = output
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        protocol::send(&mut *output, &Reply::Given { size })?;
        io::copy(&mut io::Read::take(&mut file, size), &mut *output)?;
        drop(file);
        std::fs::remove_file(path)?;
        Ok(Reply::Done)
    };
    given().map_err(|error| Fault::system("give", path.display().to_string(), error))
}

/// Takes replies while a request is under way.
type Tell<'a> = &'a (dyn Fn(Reply) + Sync);

fn serve(
    request: Request,
    driver: Driver,
    worker: &mut Option<Worker>,
    tell: Tell<'_>,
) -> Result<Reply, Fault> {
    let none = || Fault::Talk {
        reason: "no root has been begun".into(),
    };
    match request {
        Request::Mapped => {
            become_root().map_err(|error| Fault::Namespaces {
                reason: error.to_string(),
            })?;
        }
        Request::Try => ScriptRunner::try_out(driver)?,
        Request::Remove(folders) => {
            for folder in folders {
                remove_folder(&folder).map_err(|error| {
                    Fault::system("remove", folder.display().to_string(), error)
                })?;
            }
        }
        Request::Begin {
            folder,
            source_date,
            memory,
        } => {
            // Devices in a tmpfs of ours would not work, and a chroot counts on them.
            let memory = memory.filter(|_| driver != Driver::Chroot);
            *worker = Some(Worker::begin(folder, driver, source_date, memory)?);
        }
        Request::Apply(tar) => worker.as_mut().ok_or_else(none)?.apply(&tar)?,
        Request::Packages(job) => {
            let worker = worker.as_mut().ok_or_else(none)?;
            return worker.packages(&job, tell).map(Reply::Built);
        }
        Request::Tools(job) => {
            let worker = worker.as_mut().ok_or_else(none)?;
            return worker.tools(&job, tell).map(Reply::Built);
        }
        Request::Take { .. } | Request::Give(_) => {
            return Err(Fault::Talk {
                reason: "files are passed elsewhere".into(),
            });
        }
        Request::Run(job) => {
            let worker = worker.as_mut().ok_or_else(none)?;
            return worker.script(&job, tell).map(Reply::Built);
        }
        Request::End => {
            if let Some(worker) = worker.take() {
                worker.remove()?;
            }
        }
    }
    Ok(Reply::Done)
}

struct Worker {
    /// The workplace in the cache.
    folder: PathBuf,
    /// The folder with the root and the stages: the workplace, or a tmpfs in it.
    room: PathBuf,
    is_in_memory: bool,
    root: Root,
    source_date: Timestamp,
    /// Times from here on are this build's own.
    began: Timestamp,
    /// The layers in the root, merged.
    before: FileTree,
    /// Of the root as it was when `before` was true; `None` when layers have
    /// been laid down since.
    stamps: Option<Stamps>,
    stages: u32,
}

impl Worker {
    fn begin(
        folder: PathBuf,
        driver: Driver,
        source_date: i64,
        memory: Option<u64>,
    ) -> Result<Self, Fault> {
        use std::os::unix::fs::MetadataExt as _;
        let in_memory = folder.join("memory");
        // Where it cannot be mounted, the disk does as well.
        let is_in_memory = memory.is_some_and(|size| {
            std::fs::create_dir(&in_memory).is_ok() && mount_memory(&in_memory, size).is_ok()
        });
        let room = if is_in_memory {
            in_memory
        } else {
            folder.clone()
        };
        let place = room.join("root");
        let failed =
            |error: io::Error| Fault::system("make the folder", place.display().to_string(), error);
        std::fs::create_dir(&place).map_err(failed)?;
        rustix::fs::chmod(&place, rustix::fs::Mode::from_raw_mode(0o755))
            .map_err(|error| failed(error.into()))?;
        // The file system's own clock says when this build began.
        let now = std::fs::metadata(&place).map_err(failed)?;
        Ok(Self {
            root: Root::open(&place, driver).map_err(failed)?,
            folder,
            room,
            is_in_memory,
            source_date: Timestamp::from_seconds(source_date),
            began: Timestamp::from_seconds(now.mtime()),
            before: FileTree::new(),
            stamps: None,
            stages: 0,
        })
    }

    fn apply(&mut self, tar: &Path) -> Result<(), Fault> {
        let delta = delta_of(tar)?;
        let Self { root, before, .. } = self;
        // In memory and in the root at the same time.
        let applied = std::thread::scope(|scope| {
            let applied = scope.spawn(|| before.apply(&delta));
            lay(root, &delta)?;
            let joined = applied.join();
            Ok::<_, Fault>(joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        self.stamps = None;
        applied.map_err(|error| Fault::Below {
            reason: error.to_string(),
        })
    }

    fn stage(&mut self) -> Result<PathBuf, Fault> {
        self.stages += 1;
        let stage = self.room.join(format!("stage-{}", self.stages));
        std::fs::create_dir(&stage).map_err(|error| {
            Fault::system("make the folder", stage.display().to_string(), error)
        })?;
        Ok(stage)
    }

    fn packages(&mut self, job: &PackagesJob, tell: Tell<'_>) -> Result<TarSum, Fault> {
        let stamps = self.stamped()?;
        let stage = self.stage()?;
        let date = self.source_date.seconds;
        let shipped = package::install(&mut self.root, job, &stage, date, &progress(tell))?;
        self.difference(&stamps, &shipped, &job.output, tell)
    }

    fn script(&mut self, job: &RunJob, tell: Tell<'_>) -> Result<TarSum, Fault> {
        let stamps = self.stamped()?;
        let input = job.input.as_deref().map(delta_of).transpose()?;
        super::run::run(&mut self.root, job, input.as_ref(), self.source_date)?;
        self.difference(&stamps, &BTreeSet::new(), &job.output, tell)
    }

    /// Stamps of the root as it is, before something changes it.
    fn stamped(&mut self) -> Result<Stamps, Fault> {
        let stamps = match self.stamps.take() {
            Some(stamps) => stamps,
            None => stamp_all(&self.root)?,
        };
        // A change within the tick of the last stamp would look like none.
        std::thread::sleep(TICK);
        Ok(stamps)
    }

    /// What has changed since `stamps`, cleaned, as a tar in `output`.
    fn difference(
        &mut self,
        stamps: &Stamps,
        shipped: &BTreeSet<TreePath>,
        output: &Path,
        tell: Tell<'_>,
    ) -> Result<TarSum, Fault> {
        let scan = Scan {
            before: &self.before,
            stamps,
            cleaning: Some(shipped),
            began: self.began,
            source_date: self.source_date,
        };
        let difference = scan.run(&self.root)?;
        self.root.forget();
        let total = difference.content_size();
        let watch = progress(tell);
        let built = difference.write(output, &mut |done| watch("pack", done, total))?;
        let delta = delta_of(output)?;
        self.before.apply(&delta).map_err(|error| Fault::Below {
            reason: error.to_string(),
        })?;
        self.stamps = Some(difference.stamps);
        Ok(built)
    }

    fn tools(&mut self, job: &ToolsJob, tell: Tell<'_>) -> Result<TarSum, Fault> {
        let path = |bytes: &Vec<u8>| {
            TreePath::parse(bytes).map_err(|error| Fault::Talk {
                reason: error.to_string(),
            })
        };
        // The appliance's own layers are made at the same time, and take
        // longer: this fills what they leave. Nothing depends on it.
        let _lower = rustix::process::nice(TOOLS_NICENESS);
        let stage = self.stage()?;
        package::unpack_only(&mut self.root, &job.debs, &stage, &progress(tell))?;
        for (name, bytes) in &job.input {
            self.root.write(&path(name)?, bytes, 0o644)?;
        }
        let program = job.command.first().cloned().unwrap_or_default();
        let run = self.run_tool(job)?;
        if !run.is_success {
            return Err(Fault::Program {
                program,
                status: run.status,
                output: run.output,
            });
        }
        let mut kept = BTreeMap::new();
        for name in &job.keep {
            let path = path(name)?;
            let bytes = self.root.read(&path, u64::MAX)?;
            let bytes = bytes.ok_or_else(|| Fault::NotMade {
                program: program.clone(),
                path: format!("/{path}"),
            })?;
            kept.insert(path, bytes);
        }
        write_kept(&kept, self.source_date, &job.output)
    }

    fn run_tool(&mut self, job: &ToolsJob) -> Result<super::Run, Fault> {
        for name in ["proc", "dev", "tmp"] {
            let path = TreePath::parse(name.as_bytes()).expect("a relative path");
            self.root.make_directories(&path)?;
        }
        let date = self.source_date.seconds;
        let mut runner = ScriptRunner::start(&self.root, date, Network::Off)?;
        let run = runner.run(job.command.clone(), Vec::new())?;
        runner.end()?;
        Ok(run)
    }

    /// Removes the root, whoever owns what is in it.
    fn remove(self) -> Result<(), Fault> {
        let Self {
            folder,
            root,
            is_in_memory,
            ..
        } = self;
        drop(root);
        if is_in_memory {
            // It goes away with this process; the folder is the parent's to remove.
            return Ok(());
        }
        remove_folder(&folder)
            .map_err(|error| Fault::system("remove", folder.display().to_string(), error))
    }
}

/// Tells how far a phase is, whenever another percent is done.
fn progress(tell: Tell<'_>) -> impl Fn(&str, u64, u64) + Sync {
    let last = Mutex::new((String::new(), 0));
    move |phase, done, total| {
        let percent = done.saturating_mul(100) / total.max(1);
        let mut last = last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.0 != phase || last.1 != percent {
            *last = (phase.to_owned(), percent);
            tell(Reply::Progress {
                phase: phase.to_owned(),
                done,
                total,
            });
        }
    }
}

fn delta_of(tar: &Path) -> Result<TreeDelta, Fault> {
    let failed = |error: io::Error| Fault::system("open", tar.display().to_string(), error);
    let blob = Blob::open(tar).map_err(failed)?;
    read_delta(&blob).map_err(|error| Fault::Below {
        reason: in_full(&error),
    })
}

fn in_full(error: &TarError) -> String {
    error.to_string()
}

fn write_kept(
    kept: &BTreeMap<TreePath, Vec<u8>>,
    date: Timestamp,
    output: &Path,
) -> Result<TarSum, Fault> {
    use crate::tree::{Content, Node};
    let failed = |reason: String| Fault::System {
        action: "write".into(),
        path: output.display().to_string(),
        reason,
        is_full: false,
    };
    let mut delta = TreeDelta::new();
    for (path, bytes) in kept {
        let mut node = Node::file(0o644, Content::from_bytes(bytes.clone()));
        node.meta.mtime = date;
        delta
            .put(path.clone(), node)
            .map_err(|error| failed(error.to_string()))?;
    }
    let file = std::fs::File::create_new(output)
        .map_err(|error| Fault::system("write", output.display().to_string(), error))?;
    let (mut out, sum) = crate::layer::tar::write_delta(&delta, io::BufWriter::new(file))
        .map_err(|error| failed(error.to_string()))?;
    out.flush().map_err(|error| failed(error.to_string()))?;
    Ok(sum)
}
