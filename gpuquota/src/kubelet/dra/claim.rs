//! What a ResourceClaim has been given, and what that means for its containers.

use super::parameters::Parameters;
use super::store::{Claimed, Wanted};
use crate::agent::nri::quantity::{MIB, mebibytes, whole};
use crate::kubelet::cards::Piece;
use crate::kubelet::common::{Part, limits};
use crate::words::bytes;
use serde_json::Value;

/// A capacity that was consumed, by its name with or without the driver's.
fn consumed<'v>(result: &'v Value, name: &str, driver: &str) -> Option<&'v str> {
    let of = &result["consumedCapacity"];
    of[name].as_str().or_else(|| of[format!("{driver}/{name}")].as_str())
}

/// The parameters that hold for a request: those of the class first, the claim's own over them.
fn parameters(allocation: &Value, request: &str, driver: &str) -> Result<Parameters, String> {
    let mut all = Parameters::default();
    let configs = allocation["devices"]["config"].as_array().into_iter().flatten();
    let (own, of_class): (Vec<_>, Vec<_>) = configs.partition(|config| config["source"] == "FromClaim");
    for config in of_class.into_iter().chain(own) {
        let opaque = &config["opaque"];
        let named = config["requests"].as_array().filter(|named| !named.is_empty());
        // A request with alternatives is told as REQUEST/ALTERNATIVE.
        let main = request.split('/').next().unwrap_or(request);
        let is_for =
            named.is_none_or(|named| named.iter().any(|name| name == request || name.as_str() == Some(main)));
        if opaque["driver"] == driver && is_for {
            all = Parameters::read(&opaque["parameters"])?.over(all);
        }
    }
    Ok(all)
}

/// One device of an allocation.
fn part(result: &Value, piece: &Piece, driver: &str, parameters: &Parameters) -> Result<Part, String> {
    let unread = |name: &str, value: &str| {
        format!(
            "{} consumes {name} {:?}, which is no number of it",
            piece.name,
            value.escape_debug().to_string()
        )
    };
    let memory = match consumed(result, "memory", driver) {
        Some(text) => mebibytes(text).ok_or_else(|| unread("memory", text))?.saturating_mul(MIB),
        // A card that is not divided is given away whole.
        None => piece.memory,
    };
    let cores = match consumed(result, "cores", driver) {
        None | Some("0") => None,
        Some(text) => Some(whole(text).filter(|cores| *cores <= 100).ok_or_else(|| unread("cores", text))?),
    };
    if memory > piece.memory {
        return Err(format!(
            "{} consumes {} of memory, and {} has {}. The card has changed since it was allocated; delete the pod and the claim",
            piece.name,
            bytes(memory),
            piece.uuid,
            bytes(piece.memory)
        ));
    }
    if let (Some(booked), Some(limit)) = (cores, parameters.cores_limit)
        && limit < booked
    {
        return Err(format!(
            "coresLimit is {limit} percent, and {booked} percent are booked. Write {booked} or more, or book less"
        ));
    }
    Ok(Part { uuid: piece.uuid.clone(), memory, cores, cores_limit: parameters.cores_limit })
}

/// Reads a claim of the API server's.
pub fn read(claim: &Value, driver: &str, node: &str, pieces: &[Piece]) -> Result<Wanted, String> {
    let allocation = &claim["status"]["allocation"];
    let results = allocation["devices"]["results"].as_array();
    let results = results.ok_or("it is not allocated. The scheduler does that once a pod uses it")?;
    let (mut devices, mut parts): (Vec<Claimed>, Vec<Part>) = (Vec::new(), Vec::new());
    let mut policy: Option<String> = None;
    for result in results.iter().filter(|result| result["driver"] == driver) {
        let text = |key: &str| result[key].as_str().unwrap_or_default().to_owned();
        let (request, pool, device) = (text("request"), text("pool"), text("device"));
        if pool != node {
            return Err(format!("device {device} is of pool {pool}, and this node is {node}"));
        }
        if result["adminAccess"] == true {
            return Err(format!(
                "request {request} wants adminAccess, which gives no part of a card. Leave it out"
            ));
        }
        let piece = pieces.iter().find(|piece| piece.name == device).ok_or_else(|| {
            format!("{device} is not on this node any more. Delete the pod, so that it is placed anew")
        })?;
        if let Some(trouble) = &piece.trouble {
            return Err(format!(
                "{device} ({}) {}. Delete the pod, so that it is placed anew",
                piece.uuid,
                trouble.words()
            ));
        }
        let parameters = parameters(allocation, &request, driver)?;
        if let Some(named) = &parameters.policy {
            match &policy {
                Some(other) if other != named => {
                    return Err(format!(
                        "its requests want policy {other} and policy {named}, and a claim is one quota. Write one of them, or two claims"
                    ));
                }
                _ => policy = Some(named.clone()),
            }
        }
        let part = part(result, piece, driver, &parameters)?;
        // Two requests that met on one card are one part of it.
        match parts.iter_mut().find(|known| known.uuid == part.uuid) {
            None => parts.push(part),
            Some(known) => known.add(&part),
        }
        devices.push(Claimed { requests: vec![request], pool, device, uuid: piece.uuid.clone() });
    }
    if devices.is_empty() {
        return Err(format!("no device of it is {driver}'s"));
    }
    let further: Vec<_> = policy.into_iter().map(|policy| ("policy", policy)).collect();
    let text = |key: &str| claim["metadata"][key].as_str().unwrap_or_default().to_owned();
    Ok(Wanted {
        namespace: text("namespace"),
        name: text("name"),
        limits: limits("dra", &parts, &further),
        parts,
        devices,
    })
}

/// Whether the card has so much left beside what is prepared: the scheduler counts, and this holds if two have counted.
pub fn fits(wanted: &Wanted, others: &[(String, &Wanted)], pieces: &[Piece]) -> Result<(), String> {
    for part in &wanted.parts {
        let Some(piece) = pieces.iter().find(|piece| piece.uuid == part.uuid) else { continue };
        let on_it = || {
            let of = |(name, other): &'_ (String, &Wanted)| {
                let part = other.parts.iter().find(|other| other.uuid == part.uuid)?;
                Some((name.clone(), part.clone()))
            };
            others.iter().filter_map(of)
        };
        let taken: u64 = on_it().map(|(_, part)| part.memory).sum();
        let cores: u64 = on_it().filter_map(|(_, part)| part.cores).sum();
        let names = || on_it().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        if taken.saturating_add(part.memory) > piece.memory {
            return Err(format!(
                "{} has {}, of which {} are prepared for {}, and this claim wants {}. Two of them contradict: delete one of the pods",
                piece.name,
                bytes(piece.memory),
                bytes(taken),
                names(),
                bytes(part.memory)
            ));
        }
        if cores + part.cores.unwrap_or(0) > 100 {
            return Err(format!(
                "of the time of {} {cores} percent are prepared for {}, and this claim wants {} percent. Two of them contradict: \
                 delete one of the pods",
                piece.name,
                names(),
                part.cores.unwrap_or(0)
            ));
        }
    }
    Ok(())
}
