//! `consign boot`: starts an image in QEMU and shows its console, or waits
//! for its ready line.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use consign_schema::{ParamValue, SiteConfig};

use super::config::{BootConfig, disk_for_boot};
use super::error::CliError;
use crate::appliance::FILE_NAME;
use crate::error::Error;
use crate::machine::guest::{Guest, Qemu, free_port};
use crate::machine::{
    Bus, Chipset, Disk, Firmware, Format, Forward, GuestSpec, MachineError, Network, Subnet, Writes,
};
use crate::report::Reporter;
use crate::tree::list_folder;
use crate::units::ByteSize;

/// Starts an image in QEMU; the image stays as it is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BootArgs {
    /// The image, or the folder that `consign build` left it in.
    #[arg(default_value = "out", value_name = "IMAGE")]
    image: PathBuf,
    /// What starts before the disk.
    #[arg(long, value_enum, default_value_t = FirmwareName::Bios)]
    firmware: FirmwareName,
    /// A config disk, or a site configuration (`*.toml`) to make one of.
    /// Without it: the appliance's own sample.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// No config disk at all.
    #[arg(long, conflicts_with = "config")]
    no_config: bool,
    /// The appliance, for its roles and its sample.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    /// Shows no console; prints forwarded ports and what the guest says of itself.
    #[arg(long)]
    headless: bool,
    /// Ends as soon as the guest is ready, or with code 5 when it says that it
    /// will not be, or after so many seconds.
    #[arg(long, value_name = "SECONDS", requires = "headless")]
    wait_ready: Option<u64>,
    /// Memory.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = ByteSize::parse)]
    memory: ByteSize,
    /// Virtual processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// How the disk is attached.
    #[arg(long, value_name = "BUS", default_value = "virtio-blk", value_parser = bus)]
    bus: Bus,
    /// Forwards a TCP port of 127.0.0.1 to the guest: `GUEST` for a free port,
    /// or `HOST:GUEST`. Without it: those of ssh and HTTP.
    #[arg(long, value_name = "PORTS", value_parser = port_forward)]
    port_forward: Vec<PortForward>,
    /// Keeps what the guest writes on its serial console.
    #[arg(long, value_name = "FILE")]
    console_log: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FirmwareName {
    /// PC BIOS.
    Bios,
    /// UEFI without Secure Boot.
    Uefi,
    /// UEFI with Secure Boot.
    UefiSecure,
}

/// One `--port-forward`; `host` is `None` for a free port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PortForward {
    host: Option<u16>,
    guest: u16,
}

/// Ports that a person wants to reach: ssh and HTTP.
const USUAL_PORTS: [u16; 2] = [22, 80];

fn bus(name: &str) -> Result<Bus, String> {
    let known = || Bus::ALL.map(Bus::name).join(", ");
    Bus::ALL
        .into_iter()
        .find(|bus| bus.name() == name)
        .ok_or_else(|| format!("known are {}", known()))
}

fn port_forward(text: &str) -> Result<PortForward, String> {
    let port = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is no port; write 1 to 65535")),
        Ok(port) => Ok(port),
    };
    Ok(match text.split_once(':') {
        Some((host, guest)) => PortForward {
            host: Some(port(host)?),
            guest: port(guest)?,
        },
        None => PortForward {
            host: None,
            guest: port(text)?,
        },
    })
}

/// Runs the subcommand. `search_path` is where QEMU is looked for.
///
/// # Errors
///
/// [`MachineError`], and what is wrong with the site configuration.
pub(super) fn run(
    args: &BootArgs,
    search_path: &OsStr,
    reporter: &dyn Reporter,
) -> Result<(), Error> {
    let image = find_image(&args.image)?;
    let made = tempfile::tempdir().map_err(|source| CliError::Folder {
        path: std::env::temp_dir(),
        source,
    })?;
    let config = if args.no_config {
        None
    } else {
        disk_for_boot(args.config.as_deref(), &args.file, made.path())?
    };
    let spec = guest_spec(args, image, config)?;
    let qemu = Qemu::find(search_path, reporter)?;
    if !args.headless {
        announce_ports(&mut std::io::stderr(), &spec);
        say("Ctrl-A X ends the guest; Ctrl-C goes to it.");
        qemu.run_on_terminal(&spec, args.console_log.as_deref())?;
        return Ok(());
    }
    announce_ports(&mut std::io::stdout(), &spec);
    let mut guest = qemu.start(&spec, args.console_log.as_deref())?;
    // QEMU has it open; so nothing is left behind even if we are killed.
    drop(made);
    let ended = match args.wait_ready {
        Some(seconds) => wait_ready(&mut guest, Duration::from_secs(seconds)),
        None => follow(&mut guest),
    };
    if ended.is_err() {
        say_last_lines(&guest);
    }
    Ok(ended?)
}

fn guest_spec(
    args: &BootArgs,
    image: Disk,
    config: Option<BootConfig>,
) -> Result<GuestSpec, MachineError> {
    let firmware = match args.firmware {
        FirmwareName::Bios => Firmware::Bios,
        FirmwareName::Uefi => Firmware::Uefi,
        FirmwareName::UefiSecure => Firmware::UefiSecure,
    };
    let mut spec = GuestSpec::new(firmware);
    (spec.memory, spec.cpus, spec.bus) = (args.memory, args.cpus, args.bus);
    if spec.bus == Bus::Ide {
        spec.chipset = Chipset::Pc;
    }
    spec.disks = vec![image];
    let site = config.as_ref().and_then(|config| config.site.as_ref());
    spec.network = Some(network(&args.port_forward, site)?);
    spec.disks.extend(config.map(|config| disk(config.disk)));
    Ok(spec)
}

/// The network that the site expects, with ports forwarded.
fn network(asked: &[PortForward], site: Option<&SiteConfig>) -> Result<Network, MachineError> {
    let usual = || {
        let mut ports = USUAL_PORTS.to_vec();
        ports.extend(site.into_iter().flat_map(role_ports));
        ports.sort_unstable();
        ports.dedup();
        let free = |guest| PortForward { host: None, guest };
        ports.into_iter().map(free).collect()
    };
    let wanted: Vec<PortForward> = if asked.is_empty() {
        usual()
    } else {
        asked.to_owned()
    };
    let subnet = site.and_then(subnet);
    let forwards = wanted
        .into_iter()
        .map(|PortForward { host, guest }| {
            Ok(Forward {
                host: host.map_or_else(free_port, Ok)?,
                address: subnet.map(|subnet| subnet.guest),
                guest,
            })
        })
        .collect::<Result<_, MachineError>>()?;
    Ok(Network { subnet, forwards })
}

/// Ports that the role listens on: its numbers called `port` or `..._port`.
fn role_ports(site: &SiteConfig) -> impl Iterator<Item = u16> {
    site.app.iter().filter_map(|(name, value)| match value {
        ParamValue::Int(port) if name == "port" || name.ends_with("_port") => {
            u16::try_from(*port).ok().filter(|port| *port != 0)
        }
        _ => None,
    })
}

/// The network of the first fixed IPv4 address with a gateway; `None` leaves
/// the guest in QEMU's own network, where it asks DHCP.
fn subnet(site: &SiteConfig) -> Option<Subnet> {
    let is_v4 = |address: &IpAddr| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    };
    site.nics.iter().find_map(|nic| {
        let gateway = nic.link.gateways.iter().find_map(is_v4)?;
        nic.link.addresses.iter().find_map(|net| {
            let guest = is_v4(&net.address)?;
            let fits = net.prefix <= 28 && net.contains(gateway.into());
            fits.then_some(Subnet {
                guest,
                gateway,
                prefix: net.prefix,
            })
        })
    })
}

/// The image itself, or the one image of a folder: qcow2 before raw.
fn find_image(place: &Path) -> Result<Disk, MachineError> {
    let open = |source| MachineError::Open {
        path: place.to_owned(),
        source,
    };
    if !place.is_dir() {
        return Ok(disk(place.to_owned()));
    }
    let files = list_folder(place).map_err(open)?;
    for extension in ["qcow2", "raw"] {
        let mut found: Vec<PathBuf> = files
            .iter()
            .filter(|file| file.metadata.is_file())
            .map(|file| file.path.clone())
            .filter(|path| path.extension() == Some(OsStr::new(extension)))
            .collect();
        if found.len() > 1 {
            let name = |path: &PathBuf| path.file_name().map(|name| name.display().to_string());
            return Err(MachineError::SeveralImages {
                folder: place.to_owned(),
                names: found.iter().filter_map(name).collect(),
            });
        }
        if let Some(path) = found.pop() {
            return Ok(disk(path));
        }
    }
    Err(MachineError::NoImage {
        folder: place.to_owned(),
    })
}

/// The format goes by the name: a raw disk may hold anything, so looking
/// inside would let a guest choose.
fn disk(path: PathBuf) -> Disk {
    let format = match path.extension() {
        Some(extension) if extension == "qcow2" => Format::Qcow2,
        _ => Format::Raw,
    };
    Disk {
        path,
        format,
        writes: Writes::Discarded,
    }
}

fn wait_ready(guest: &mut Guest, limit: Duration) -> Result<(), MachineError> {
    let started = std::time::Instant::now();
    let line = guest.wait_ready(limit)?;
    print(&line.text);
    let waited = started.elapsed().as_secs_f64();
    match guest.cpu_time() {
        Ok(used) => print(&format!(
            "ready after {waited:.1} s; QEMU used {:.1} s of processor time",
            used.as_secs_f64()
        )),
        Err(_) => print(&format!("ready after {waited:.1} s")),
    }
    Ok(())
}

/// Prints what the guest says of itself until it goes off.
fn follow(guest: &mut Guest) -> Result<(), MachineError> {
    const FOR_EVER: Duration = Duration::from_hours(24 * 365);
    loop {
        match guest.next_state(FOR_EVER) {
            Ok(line) => print(&line.text),
            Err(MachineError::WentOff { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn announce_ports(to: &mut impl std::io::Write, spec: &GuestSpec) {
    for forward in spec.network.iter().flat_map(|network| &network.forwards) {
        // Whoever closed the other end does not want to know.
        let _written = writeln!(
            to,
            "127.0.0.1:{} -> port {} of the guest",
            forward.host, forward.guest
        );
    }
}

/// How much of the console is shown when the guest fails.
const LAST_LINES: usize = 20;

fn say_last_lines(guest: &Guest) {
    let text = guest.console().text();
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.len().saturating_sub(LAST_LINES);
    say("The console's last lines:");
    for line in lines.iter().skip(shown) {
        say(&format!("  {}", crate::exec::escape(line.trim_end())));
    }
}

fn print(line: &str) {
    let _written = writeln!(std::io::stdout(), "{}", crate::exec::escape(line));
}

fn say(line: &str) {
    let _written = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_two_numbers() {
        assert_eq!(
            port_forward("8080:80"),
            Ok(PortForward {
                host: Some(8080),
                guest: 80
            })
        );
        assert_eq!(
            port_forward("22"),
            Ok(PortForward {
                host: None,
                guest: 22
            })
        );
        assert_eq!(
            port_forward("0"),
            Err("`0` is no port; write 1 to 65535".into())
        );
        assert!(port_forward("80:").is_err());
        assert!(port_forward("70000").is_err());
    }

    fn site(text: &str) -> SiteConfig {
        let head = "schema = 1\n[config]\nid = \"a\"\nserial = 1\n";
        consign_schema::check(
            &format!("{head}{text}"),
            &[],
            &consign_schema::Policy::default(),
        )
        .expect("a right configuration")
    }

    #[test]
    fn a_site_with_a_fixed_address_gets_its_network() {
        let fixed = site(
            "[[nic]]\nmatch = { name = \"e*\" }\naddress = [\"fd00::2/64\", \"192.0.2.9/24\"]\n\
             gateway = [\"192.0.2.1\"]\n",
        );
        let network = network(&[], Some(&fixed)).expect("a network");
        let subnet = network.subnet.expect("its own");
        assert_eq!(subnet.guest.octets(), [192, 0, 2, 9]);
        assert_eq!(subnet.gateway.octets(), [192, 0, 2, 1]);
        assert!(
            network
                .forwards
                .iter()
                .all(|forward| forward.address == Some(subnet.guest))
        );
        let dhcp = site("[[nic]]\nmatch = { name = \"e*\" }\ndhcp4 = true\n");
        assert_eq!(super::subnet(&dhcp), None);
    }

    #[test]
    fn an_unknown_bus_lists_the_known_ones() {
        assert_eq!(bus("nvme"), Ok(Bus::Nvme));
        let error = bus("scsi").expect_err("unknown");
        assert!(error.starts_with("known are virtio-blk, virtio-scsi, nvme"));
    }

    #[test]
    fn of_a_folder_the_qcow2_image_is_taken() {
        let folder = tempfile::tempdir().expect("folder");
        let error = find_image(folder.path()).expect_err("empty");
        assert_eq!(error.slug(), "machine-no-image");
        for name in ["wiki.raw", "wiki.qcow2", "appliance.xml"] {
            std::fs::write(folder.path().join(name), "").expect("write");
        }
        let found = find_image(folder.path()).expect("found");
        assert_eq!(found.format, Format::Qcow2);
        std::fs::write(folder.path().join("other.qcow2"), "").expect("write");
        let error = find_image(folder.path()).expect_err("two");
        assert!(
            error
                .to_string()
                .ends_with("several disk images: other.qcow2, wiki.qcow2"),
            "{error}"
        );
    }
}
