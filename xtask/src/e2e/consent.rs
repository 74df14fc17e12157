//! Nothing leaves without consent, seen from the wire.

use std::fs;

use super::capture::Capture;
use super::namespace::Namespace;
use super::world::{Candor, World};
use crate::sys::{Doing, Failure, Outcome};

/// Exit code of the program when no consent was given for the service.
const EXIT_NO_CONSENT: i32 = 3;

/// A device and a cell as two processes in a namespace of their own, with everything captured.
pub(super) fn no_consent_no_packets(world: &World) -> Outcome {
    let namespace = Namespace::new()?;
    let source = world.path("documents");
    fs::create_dir(&source)?;
    fs::write(
        source.join("letter.txt"),
        "a letter that may leave only after a yes\n".repeat(1000),
    )?;

    let device = world.candor("device").inside(&namespace);
    fresh_install_is_silent(world, &namespace)?;

    let (cell, invitation) = world
        .candor("cell")
        .inside(&namespace)
        .new_cell(&world.path("cell.log"))?;
    let phrase = world.path("phrase.txt");
    device.run(
        [
            "account",
            "create",
            "someone",
            "--cell",
            &invitation,
            "--unprotected-keys",
            "--recovery-file",
        ]
        .map(Into::into)
        .into_iter()
        .chain([phrase.into_os_string()]),
    )?;
    device.run([
        "backup".as_ref(),
        "add".as_ref(),
        source.as_os_str(),
        "--name".as_ref(),
        "documents".as_ref(),
    ])?;

    let without = captured(world, &namespace, "without.pcap", || {
        device
            .try_run(["backup", "run", "documents"])?
            .must_exit(EXIT_NO_CONSENT)?;
        device
            .try_run(["backup", "run", "--all"])?
            .must_exit(EXIT_NO_CONSENT)
    })?;
    if without != 0 {
        return Err(Failure::new(format!("{without} packets without a grant")));
    }

    device.run(["consent", "on", "backup", "--yes"])?;
    let with = captured(world, &namespace, "with.pcap", || run_backup(&device))?;
    if with == 0 {
        return Err(Failure::new(
            "no packet with a grant: the capture shows nothing",
        ));
    }

    device.run(["consent", "off", "backup"])?;
    let after = captured(world, &namespace, "after.pcap", || {
        device
            .try_run(["backup", "run", "--all"])?
            .must_exit(EXIT_NO_CONSENT)
    })?;
    if after != 0 {
        return Err(Failure::new(format!(
            "{after} packets after consent was withdrawn"
        )));
    }
    println!("packets: 0 without a grant, {with} with one, 0 after it was withdrawn");
    cell.stop()
}

fn run_backup(device: &Candor<'_>) -> Outcome {
    device.run(["backup", "run", "--all"]).map(drop)
}

/// A home that never said yes to anything: looking around sends nothing.
fn fresh_install_is_silent(world: &World, namespace: &Namespace) -> Outcome {
    let fresh = world.candor("fresh").inside(namespace);
    let packets = captured(world, namespace, "fresh.pcap", || {
        for words in [
            &["--version"][..],
            &["status"],
            &["consent", "list"],
            &["backup", "list"],
        ] {
            // How they end on an empty home is for other tests; here only the wire counts.
            fresh.try_run(words)?;
        }
        Ok(())
    })?;
    if packets == 0 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{packets} packets from a fresh install"
    )))
}

/// How many packets crossed the namespace's interfaces while `act` ran.
fn captured(
    world: &World,
    namespace: &Namespace,
    name: &str,
    act: impl FnOnce() -> Outcome,
) -> Outcome<usize> {
    let capture = Capture::start(namespace, &world.path(name))?;
    act()?;
    capture.stop().doing(name)
}
