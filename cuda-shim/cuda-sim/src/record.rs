//! A machine file of the driver that is there, real or simulated.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::{Command, Stdio};

use cuda_shim_device::{DeviceSpec, PRESETS};
use cuda_shim_symbols::{CUDA_ERRORS, ROWS};

use crate::driver::{Device, Driver};
use crate::states::Outcome;

/// Prints the file; `folder` holds the driver's libraries, where they are not those of this environment.
pub fn record(folder: Option<&str>) -> Outcome<()> {
    let driver = Driver::load(folder)?;
    let devices = driver.devices();
    let mut file = String::new();
    line(&mut file, format_args!("# Recorded by cuda-sim record."));
    if let Some(version) = driver.version() {
        line(&mut file, format_args!("driver = {version:?}"));
    }
    if let Some(version) = driver.cuda_version() {
        line(&mut file, format_args!("cuda = \"{}.{}\"", version / 1000, version % 1000 / 10));
    }
    line(&mut file, format_args!("lacks = {:?}", driver.lacks()));
    let mut rest = &devices[..];
    while let Some(first) = rest.first() {
        let alike = rest.iter().take_while(|device| *device == first).count();
        write_device(&mut file, first, alike);
        rest = &rest[alike..];
    }
    if devices.is_empty() {
        line(
            &mut file,
            format_args!("\n# No device answers: what follows is all that a driver tells without one."),
        );
    }
    write_answers(&mut file, "before_init", &answers(folder, false)?);
    if !devices.is_empty() {
        write_answers(&mut file, "with_context", &answers(folder, true)?);
    }
    print!("{file}");
    Ok(())
}

fn line(file: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(file, "{text}");
}

fn write_device(file: &mut String, device: &Device, count: usize) {
    let value = |id| device.attributes.iter().find(|(known, _)| *known == id).map(|(_, value)| *value);
    let capability = [value(75), value(76)].map(|value| value.unwrap_or(0) as u32);
    let near = |name: &&&str| {
        DeviceSpec::preset(name, 0).is_some_and(|spec| [spec.cc_major, spec.cc_minor] == capability)
    };
    line(file, format_args!("\n[[device]]\nlike = {:?}", PRESETS.iter().find(near).unwrap_or(&PRESETS[0])));
    line(file, format_args!("name = {:?}\nmemory = \"{}B\"", device.name, device.bytes));
    let unlisted = device.unlisted_bytes.filter(|bytes| *bytes != 0);
    let sizes =
        [("context", device.context_bytes), ("unlisted", unlisted), ("granularity", device.granularity)];
    for (key, bytes) in sizes {
        if let Some(bytes) = bytes {
            line(file, format_args!("{key} = \"{bytes}B\""));
        }
    }
    for (key, number) in [("pci_id", device.pci_id), ("power_mw", device.power_mw)] {
        if let Some(number) = number {
            line(file, format_args!("{key} = {number}"));
        }
    }
    if count > 1 {
        line(file, format_args!("count = {count}"));
    }
    line(file, format_args!("[device.attributes]"));
    for (id, value) in &device.attributes {
        line(file, format_args!("{id} = {value}"));
    }
}

fn write_answers(file: &mut String, when: &str, answers: &BTreeMap<&str, String>) {
    line(file, format_args!("\n[nulls.{when}]"));
    for (export, answer) in answers {
        line(file, format_args!("{export} = {answer:?}"));
    }
}

/// What each export answers to nulls. The calls are made in a process of their own, and after a crash in the next one.
fn answers(folder: Option<&str>, with_context: bool) -> Outcome<BTreeMap<&'static str, String>> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut answers = BTreeMap::new();
    let mut next = 0;
    while next < ROWS.len() {
        let mut command = Command::new(&own);
        command.args(["call-with-nulls", &next.to_string()]).stderr(Stdio::null());
        command.args(folder.map(|folder| format!("--folder={folder}")));
        if with_context {
            command.arg("--with-context");
        }
        let output = command.output().map_err(|error| error.to_string())?;
        let begun = next;
        for told in String::from_utf8_lossy(&output.stdout).lines() {
            let mut words = told.split(' ');
            let place: Option<usize> = words.next().and_then(|place| place.parse().ok());
            let Some((place, row)) = place.and_then(|place| Some((place, ROWS.get(place)?))) else {
                continue;
            };
            let answer = words.next().and_then(|code| code.parse().ok());
            answers.insert(row.export, answer.map_or("a crash".to_owned(), name));
            next = place + 1;
        }
        if output.status.success() {
            break;
        }
        // Nothing was told: the process did not come as far as a call.
        if next == begun {
            next += 1;
        }
    }
    Ok(answers)
}

fn name(code: i32) -> String {
    let known = CUDA_ERRORS.iter().find(|(known, _)| *known == code);
    known.map_or(code.to_string(), |(_, name)| name.to_string_lossy().into_owned())
}
