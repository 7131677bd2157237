//! Promises of the limits: what is understood, what is refused by name, and who outranks whom.

use super::*;
use crate::text::Line;
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec::Vec;

const GI: u64 = 1 << 30;
const UUID: &str = "GPU-8f3a1c2d-0000-4a5b-9c6d-001122334455";

fn reading(vars: &[(&str, &str)], file: Option<&str>) -> Reading {
    let env = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes());
    read(&env, file.map(str::as_bytes))
}

fn limits(vars: &[(&str, &str)]) -> Limits {
    let reading = reading(vars, None);
    assert!(reading.problems.iter().next().is_none(), "{:?}", messages(&reading));
    reading.limits
}

fn reasons(reading: &Reading) -> Vec<Reason> {
    reading.problems.iter().map(|problem| problem.reason).collect()
}

fn messages(reading: &Reading) -> Vec<String> {
    let message = |problem: &Problem| {
        let mut line = Line::<512>::new();
        problem.write(&mut line, reading.consequence());
        line.to_string()
    };
    reading.problems.iter().map(message).collect()
}

#[test]
fn without_any_word_there_is_no_limit_and_nothing_to_complain_about() {
    let limits = limits(&[]);
    assert_eq!(limits, Limits::default());
    assert_eq!((limits.memory_for(0, b""), limits.cores_for(0, b"")), (None, None));
}

#[test]
fn a_list_gives_each_device_its_own_and_the_rest_the_bare_value() {
    let memory = std::format!("8GiB, 0=1GiB,{UUID}=4GiB , 2 = 2GiB");
    let limits = limits(&[("GPUQUOTA_MEMORY", &memory), ("GPUQUOTA_CORES", "1=30%")]);
    assert_eq!(limits.memory_for(0, b"GPU-other"), Some(GI));
    assert_eq!(limits.memory_for(1, b""), Some(8 * GI));
    assert_eq!(limits.memory_for(2, b""), Some(2 * GI));
    assert_eq!(limits.memory_for(0, UUID.to_lowercase().as_bytes()), Some(4 * GI));
    assert_eq!((limits.cores_for(0, b""), limits.cores_for(1, b"")), (None, Some(30)));
}

#[test]
fn a_mig_instance_is_known_by_its_number_whatever_stands_before_it() {
    let limits = limits(&[("GPUQUOTA_MEMORY", "MIG-8f3a1c2d-0000-4a5b-9c6d-001122334455=1GiB")]);
    assert_eq!(limits.memory_for(0, UUID.as_bytes()), Some(GI));
    assert_eq!(limits.memory_for(0, b"8f3a1c2d"), None);
}

#[test]
fn each_policy_has_two_names_and_two_variables() {
    for (ours, hamis, policy, share) in [
        ("burst-share", "default", CorePolicy::BurstShare, Some(30)),
        ("fixed-share", "FORCE", CorePolicy::FixedShare, Some(30)),
        ("best-effort", "disable", CorePolicy::BestEffort, None),
    ] {
        for variable in ["GPUQUOTA_POLICY", "GPU_CORE_UTILIZATION_POLICY"] {
            for name in [ours, hamis] {
                let limits = limits(&[("CUDA_DEVICE_SM_LIMIT", "30"), (variable, name)]);
                assert_eq!((limits.policy, limits.cores_for(0, b"")), (policy, share), "{variable}={name}");
            }
        }
        let both = [("GPUQUOTA_POLICY", ours), ("GPU_CORE_UTILIZATION_POLICY", "disable")];
        assert_eq!(limits(&both).policy, policy, "ours outranks HAMi's");
    }
    assert_eq!(reasons(&reading(&[("GPUQUOTA_POLICY", "fair")], None)), [Reason::UnknownWord]);
}

#[test]
fn no_more_can_be_guaranteed_than_may_be_had() {
    let with = |cores: &'static str, request: &'static str| {
        reading(&[("GPUQUOTA_CORES", cores), ("GPUQUOTA_CORES_REQUEST", request)], None)
    };
    let good = with("60%", "30%");
    assert_eq!((reasons(&good), good.limits.request_for(0, b"")), (std::vec![], Some(30)));
    assert_eq!(with("60%", "").limits.request_for(0, b""), None);
    assert_eq!(reasons(&with("30%", "31")), [Reason::AboveTheShare]);
    assert_eq!(reasons(&with("0=30,1=60", "1=60,0=40")), [Reason::AboveTheShare]);
    assert_eq!(reasons(&with("60", "GPU-12345678=61%")), [Reason::AboveTheShare]);
    let hami = reading(&[("GPUQUOTA_CORES_REQUEST", "40"), ("CUDA_DEVICE_SM_LIMIT", "30")], None);
    assert_eq!(
        (reasons(&hami), hami.limits.request_for(0, b"")),
        (std::vec![Reason::AboveTheShare], Some(30))
    );
    let file = reading(&[], Some("cores = 30\n\ncores_request = 40"));
    assert!(
        messages(&file)[0].starts_with("limits file, line 3, \"40%\": more is guaranteed"),
        "{:?}",
        messages(&file)
    );
    let alone = reading(&[("GPUQUOTA_CORES_REQUEST", "40%")], None);
    assert_eq!((reasons(&alone), alone.limits.request_for(3, b"")), (std::vec![], Some(40)));
}

#[test]
fn a_wrong_entry_of_a_list_is_named_alone() {
    let reading = reading(&[("GPUQUOTA_MEMORY", "0=1GiB,1=2GB,,x=1GiB,32=1GiB,0=3GiB,MIG-=1")], None);
    let expected = [
        Reason::AmbiguousUnit,
        Reason::Empty,
        Reason::BadSelector,
        Reason::IndexTooHigh,
        Reason::GivenTwice,
        Reason::BadSelector,
    ];
    assert_eq!(reasons(&reading), expected);
    let values: Vec<&[u8]> = reading.problems.iter().map(Problem::value).collect();
    assert_eq!(values, [&b"1=2GB"[..], b"", b"x=1GiB", b"32=1GiB", b"0=3GiB", b"MIG-=1"]);
    assert_eq!(reading.limits.memory_for(0, b""), Some(GI));
}

#[test]
fn hamis_sizes_keep_their_meaning() {
    let limits = limits(&[
        ("CUDA_DEVICE_MEMORY_LIMIT", "3g"),
        ("CUDA_DEVICE_MEMORY_LIMIT_0", "1024m"),
        ("CUDA_DEVICE_MEMORY_LIMIT_1", "2K"),
        ("CUDA_DEVICE_MEMORY_LIMIT_15", "4096"),
        ("CUDA_DEVICE_SM_LIMIT", "50"),
        ("CUDA_DEVICE_SM_LIMIT_1", "100"),
    ]);
    let memory = |index| limits.memory_for(index, b"");
    assert_eq!([memory(0), memory(1), memory(2), memory(15)], [GI, 2048, 3 * GI, 4096].map(Some));
    assert_eq!((limits.cores_for(0, b""), limits.cores_for(1, b"")), (Some(50), Some(100)));
}

#[test]
fn hamis_zero_and_empty_are_no_limit_and_said_aloud() {
    let reading = reading(
        &[
            ("CUDA_DEVICE_MEMORY_LIMIT", "2g"),
            ("CUDA_DEVICE_MEMORY_LIMIT_0", "0"),
            ("CUDA_DEVICE_MEMORY_LIMIT_1", ""),
            ("CUDA_DEVICE_SM_LIMIT", "0"),
        ],
        None,
    );
    assert_eq!(reasons(&reading), [Reason::ZeroMeansNone, Reason::EmptyMeansNone, Reason::ZeroMeansNone]);
    assert!(!reading.closed());
    // As in HAMi, an indexed zero leaves the device to the variable without an index.
    assert_eq!(reading.limits.memory_for(0, b""), Some(2 * GI));
    assert_eq!(reading.limits.cores_for(0, b""), None);
}

#[test]
fn what_hami_would_misread_is_an_error_and_closed() {
    let memory = "CUDA_DEVICE_MEMORY_LIMIT";
    let cores = "CUDA_DEVICE_SM_LIMIT";
    let wrong = [
        (memory, "1.5x", Reason::Fraction),
        (memory, "1.5g", Reason::Fraction),
        (memory, "-1", Reason::Negative),
        (memory, "10Gi", Reason::TrailingJunk),
        (memory, "2g\n", Reason::TrailingJunk),
        (memory, "2 g", Reason::TrailingJunk),
        (memory, "0x10", Reason::LeadingZero),
        (memory, "010m", Reason::LeadingZero),
        (memory, "g", Reason::Empty),
        (memory, "lots", Reason::NotANumber),
        (memory, "18446744073709551615g", Reason::TooLarge),
        (memory, "99999999999999999999", Reason::TooLarge),
        (memory, "65536g", Reason::TooLarge),
        (cores, "101", Reason::AboveHundred),
        (cores, "50k", Reason::TrailingJunk),
        (cores, "050", Reason::LeadingZero),
        ("CUDA_DEVICE_MEMORY_LIMIT_3", "1.5x", Reason::Fraction),
    ];
    for (name, value, reason) in wrong {
        let reading = reading(&[(name, value)], None);
        assert_eq!(reasons(&reading), [reason], "{name}={value}");
        assert!(reading.closed(), "{name}={value}");
    }
}

#[test]
fn vgpu_managers_host_indices_find_their_devices_by_uuid() {
    let limits = limits(&[
        ("CUDA_MEM_LIMIT_1", "1024m"),
        ("CUDA_CORE_LIMIT_1", "25"),
        ("MANAGER_VISIBLE_DEVICES", "GPU-00000000-0000-0000-0000-000000000000,GPU-11"),
    ]);
    assert_eq!(limits.memory_for(0, b"GPU-11"), Some(GI));
    assert_eq!(limits.cores_for(0, b"GPU-11"), Some(25));
    assert_eq!(limits.memory_for(1, b"GPU-22"), None);
}

/// Found by the fuzz target: such a limit held for no device.
#[test]
fn a_word_of_vgpu_managers_map_that_is_no_uuid_leaves_the_limit_to_its_index() {
    for map in ["", "nothing,else", "GPU-1, "] {
        let limits = limits(&[("CUDA_MEM_LIMIT_1", "1024m"), ("MANAGER_VISIBLE_DEVICES", map)]);
        assert_eq!(limits.memory_for(1, b"GPU-11"), Some(GI), "{map:?}");
    }
}

#[test]
fn the_file_outranks_our_variables_and_they_outrank_hamis_device_by_device() {
    let vars = [
        ("GPUQUOTA_MEMORY", "1=2GiB"),
        ("CUDA_DEVICE_MEMORY_LIMIT", "3g"),
        ("CUDA_DEVICE_MEMORY_LIMIT_0", "4g"),
        ("CUDA_DEVICE_MEMORY_LIMIT_1", "5g"),
    ];
    let own = limits(&vars);
    assert_eq!([0, 1, 2].map(|i| own.memory_for(i, b"")), [4 * GI, 2 * GI, 3 * GI].map(Some));
    let filed = reading(&vars, Some("memory = 0=1GiB")).limits;
    assert_eq!([0, 1, 2].map(|i| filed.memory_for(i, b"")), [GI, 2 * GI, 3 * GI].map(Some));
    let all = reading(&vars, Some("memory = 1GiB")).limits;
    assert_eq!([0, 1, 2].map(|i| all.memory_for(i, b"")), [Some(GI); 3]);
}

#[test]
fn a_variable_that_is_outranked_everywhere_need_not_be_right() {
    let vars = [("GPUQUOTA_MEMORY", "2GiB"), ("CUDA_DEVICE_MEMORY_LIMIT", "1.5x")];
    assert_eq!(limits(&vars).memory_for(0, b""), Some(2 * GI));
    assert!(reading(&[("GPUQUOTA_MEMORY", "0=2GiB"), ("CUDA_DEVICE_MEMORY_LIMIT", "1.5x")], None).closed());
}

#[test]
fn the_limits_file_is_read_line_by_line() {
    let text = "# for team-a\r\n\r\nmemory = 2GiB  # per GPU\r\n cores=30%\nmode = observe\non_error=open\npolicy = force";
    let reading = reading(&[], Some(text));
    assert!(reading.problems.iter().next().is_none(), "{:?}", messages(&reading));
    let limits = reading.limits;
    assert_eq!((limits.memory_for(9, b""), limits.cores_for(9, b"")), (Some(2 * GI), Some(30)));
    assert_eq!((limits.mode, limits.on_error), (Mode::Observe, OnError::Open));
    assert_eq!(limits.policy, CorePolicy::FixedShare);
}

#[test]
fn a_wrong_line_of_the_file_is_named_by_its_number() {
    let reading =
        reading(&[], Some("memory 2GiB\n\nmemroy = 2GiB\ncores = 30%\ncores = 40%\nmode = maybe\n"));
    let origins: Vec<Origin> = reading.problems.iter().map(|problem| problem.origin).collect();
    assert_eq!(origins, [1, 3, 5, 6].map(Origin::File));
    let expected = [Reason::NotKeyValue, Reason::UnknownKey, Reason::KeyTwice, Reason::UnknownWord];
    assert_eq!(reasons(&reading), expected);
    assert!(reading.closed());
}

#[test]
fn nothing_in_the_environment_switches_off_what_the_file_sets() {
    let vars = [
        ("GPUQUOTA_MODE", "off"),
        ("GPUQUOTA_ON_ERROR", "open"),
        ("CUDA_DISABLE_CONTROL", "true"),
        ("GPU_CORE_UTILIZATION_POLICY", "disable"),
    ];
    let limits = reading(&vars, Some("memory = 2GiB")).limits;
    assert_eq!((limits.mode, limits.on_error), (Mode::Enforce, OnError::Closed));
    assert_eq!(limits.policy, CorePolicy::BurstShare);
}

#[test]
fn our_mode_outranks_other_engines_off_switches() {
    for name in ["CUDA_DISABLE_CONTROL", "DISABLE_VGPU_CONTROL"] {
        assert_eq!(limits(&[(name, "true")]).mode, Mode::Off);
        assert_eq!(limits(&[(name, "false")]).mode, Mode::Enforce);
        assert_eq!(limits(&[(name, "1"), ("GPUQUOTA_MODE", "observe")]).mode, Mode::Observe);
    }
}

#[test]
fn an_error_closes_unless_the_operator_said_otherwise() {
    let bad = ("GPUQUOTA_CORES", "101");
    assert!(reading(&[bad], None).closed());
    assert!(reading(&[bad, ("GPUQUOTA_ON_ERROR", "perhaps")], None).closed());
    for other in [("GPUQUOTA_ON_ERROR", "open"), ("GPUQUOTA_MODE", "observe"), ("GPUQUOTA_MODE", "OFF")] {
        let open = reading(&[bad, other], None);
        assert_eq!((open.closed(), open.problems.errors()), (false, 1), "{other:?}");
    }
}

#[test]
fn hamis_other_variables_are_understood() {
    let limits = limits(&[
        ("GPU_CORE_UTILIZATION_POLICY", "FORCE"),
        ("CUDA_TASK_PRIORITY", "0"),
        ("CUDA_OVERSUBSCRIBE", "true"),
    ]);
    assert_eq!((limits.policy, limits.priority, limits.oversubscribe), (CorePolicy::FixedShare, 0, true));
    let odd = reading(
        &[
            ("GPU_CORE_UTILIZATION_POLICY", "sometimes"),
            ("CUDA_TASK_PRIORITY", "high"),
            ("CUDA_OVERSUBSCRIBE", "yes"),
        ],
        None,
    );
    assert_eq!(reasons(&odd), [Reason::PolicyUnknown, Reason::NotAPriority, Reason::NotABool]);
    assert_eq!(odd.limits, Limits::default());
}

#[test]
fn a_message_names_the_variable_the_value_and_what_to_write() {
    let closed = reading(&[("CUDA_DEVICE_MEMORY_LIMIT_1", "1.5x")], None);
    assert_eq!(
        messages(&closed),
        ["CUDA_DEVICE_MEMORY_LIMIT_1=\"1.5x\" in the environment: only whole numbers are understood here. \
          Write a whole number with g, m or k, such as 2g or 1536m. Until then there is no GPU here (the policy \
          for errors is closed)."]
    );
    let open = reading(&[("GPUQUOTA_ON_ERROR", "open"), ("GPUQUOTA_MEMORY", "2GB\x1b[31m")], None);
    assert_eq!(
        messages(&open),
        ["GPUQUOTA_MEMORY=\"2GB\\x1b[31m\" in the environment: the unit is not known. Write a size such as \
          2GiB, 1536MiB or 0=2GiB,1=4GiB. It counts as not given."]
    );
    let file = reading(&[], Some("\nmode = maybe"));
    assert_eq!(
        messages(&file),
        [
            "limits file, line 2, \"maybe\": this word is not known here. Write enforce, observe or off. Until \
          then there is no GPU here (the policy for errors is closed)."
        ]
    );
}

#[test]
fn an_error_is_not_lost_behind_warnings() {
    let mut vars: Vec<(String, &str)> =
        (0..16).map(|i| (std::format!("CUDA_DEVICE_MEMORY_LIMIT_{i}"), "0")).collect();
    vars.push(("CUDA_DEVICE_SM_LIMIT_15".into(), "101"));
    let env = |name: &str| vars.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_bytes());
    let reading = read(&env, None);
    assert_eq!((reading.problems.errors(), reading.problems.warnings()), (1, 16));
    assert_eq!(reading.problems.iter().count(), MAX_PROBLEMS);
    assert!(reasons(&reading).contains(&Reason::AboveHundred));
    assert!(reading.closed());
}

#[test]
fn more_values_than_can_be_kept_are_an_error() {
    let list: Vec<String> = (0..65).map(|i| std::format!("GPU-{i}=1GiB")).collect();
    assert_eq!(reasons(&reading(&[("GPUQUOTA_MEMORY", &list.join(","))], None)), [Reason::TooMany]);
}

#[test]
fn every_knob_that_may_be_wrong_tells_what_to_write() {
    for knob in &KNOBS {
        for text in [knob.name, knob.about, knob.values, knob.default, knob.write] {
            assert!(!text.is_empty() && text.is_ascii(), "{}", knob.name);
        }
        let longest = std::format!("{}{}", knob.name, if knob.indexed { "_15" } else { "" });
        assert!(crate::text::Fixed::<34>::copy_of(longest.as_bytes()).is_some(), "{longest}");
    }
}

#[test]
fn the_regions_path_follows_the_rule_of_every_engine() {
    let find = |vars: &[(&str, &str)]| {
        let env = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, v)| v.as_bytes());
        region_path(&env)
            .map(|region| {
                (std::str::from_utf8(region.path.as_bytes()).unwrap().to_string(), region.may_fall_back)
            })
            .map_err(|problem| problem.reason)
    };
    let pod = ("POD_UID", "42");
    let container = ("CONTAINER_NAME", "main");
    let hami = ("CUDA_DEVICE_MEMORY_SHARED_CACHE", "/usr/local/vgpu/a.cache");
    let own = ("GPUQUOTA_REGION", "/run/b.cache");
    let is = |path: &str, may_fall_back| Ok((path.to_string(), may_fall_back));
    assert_eq!(find(&[]), is("/tmp/cudevshr.cache", false));
    assert_eq!(find(&[pod]), is("/tmp/cudevshr.cache", false));
    assert_eq!(find(&[pod, container]), is("/usr/local/vgpu/containers/42_main", true));
    let mount = ("CONTAINER_VGPU_MOUNT", "/mnt");
    assert_eq!(find(&[pod, container, mount]), is("/mnt/containers/42_main", true));
    assert_eq!(find(&[pod, container, hami]), is("/usr/local/vgpu/a.cache", false));
    assert_eq!(find(&[pod, container, hami, own]), is("/run/b.cache", false));
    assert_eq!(find(&[("GPUQUOTA_REGION", ""), hami]), is("/usr/local/vgpu/a.cache", false));
    assert_eq!(find(&[("GPUQUOTA_REGION", "b.cache")]), Err(Reason::PathRelative));
    let long = "/".repeat(1023);
    assert_eq!(find(&[("GPUQUOTA_REGION", &long)]), is(&long, false));
    assert_eq!(find(&[("GPUQUOTA_REGION", &"/".repeat(1024))]), Err(Reason::PathTooLong));
}

#[test]
fn gpu_fractioning_counts_mebibytes_and_its_request_is_a_limit_where_there_is_no_other() {
    let (limit, request) = ("NVIDIA_GPU_MEMORY_LIMIT", "NVIDIA_GPU_MEMORY_REQUEST");
    let memory = |vars: &[(&str, &str)]| limits(vars).memory_for(0, b"");
    assert_eq!(memory(&[(limit, "2048"), (request, "1024")]), Some(2 * GI));
    assert_eq!(memory(&[(request, "1024")]), Some(GI));
    assert_eq!(
        memory(&[(limit, "2048"), ("CUDA_DEVICE_MEMORY_LIMIT", "1g")]),
        Some(GI),
        "HAMi's outranks it"
    );
    for (wrong, reason) in [
        ("0", Reason::Zero),
        ("", Reason::Empty),
        ("2048m", Reason::TrailingJunk),
        ("2Gi", Reason::TrailingJunk),
        ("-1", Reason::Negative),
        ("67108864", Reason::TooLarge),
    ] {
        let reading = reading(&[(limit, wrong)], None);
        assert_eq!((reasons(&reading), reading.closed()), (std::vec![reason], true), "{wrong}");
    }
}

#[test]
fn vgpu_managers_soft_share_is_the_limit_and_its_hard_one_the_guarantee() {
    let balance = [
        ("CUDA_CORE_LIMIT_0", "30"),
        ("CUDA_CORE_SOFT_LIMIT_0", "80"),
        ("CUDA_CORE_LIMIT_1", "40"),
        ("CUDA_CORE_SOFT_LIMIT_1", ""),
    ];
    let limits = limits(&balance);
    assert_eq!((limits.cores_for(0, b""), limits.request_for(0, b"")), (Some(80), Some(30)));
    assert_eq!((limits.cores_for(1, b""), limits.request_for(1, b"")), (Some(40), None));
    let below = reading(&[("CUDA_CORE_LIMIT", "30"), ("CUDA_CORE_SOFT_LIMIT", "20")], None);
    assert_eq!(reasons(&below), [Reason::BelowTheGuarantee]);
    let ours = [("GPUQUOTA_CORES", "50"), ("CUDA_CORE_LIMIT", "30"), ("CUDA_CORE_SOFT_LIMIT", "80")];
    assert_eq!(self::limits(&ours).cores_for(0, b""), Some(50));
}

#[test]
fn vgpu_managers_ratio_leaves_a_part_of_the_cap_on_the_device() {
    let with = |ratio: &'static str| [("CUDA_MEM_LIMIT_0", "3072m"), ("CUDA_MEM_RATIO_0", ratio)];
    let part = |ratio| limits(&with(ratio)).physical_for(0, b"");
    assert_eq!(part("1.50"), Some(2 * GI));
    assert_eq!(
        (part("3"), part("1.5"), part("1.00"), part("1"), part("")),
        (Some(GI), Some(2 * GI), None, None, None)
    );
    for (wrong, reason) in [
        ("0.50", Reason::RatioBelowOne),
        ("x", Reason::NotANumber),
        ("1.", Reason::Empty),
        ("1.x", Reason::NotANumber),
    ] {
        assert_eq!(reasons(&reading(&with(wrong), None)), [reason], "{wrong}");
    }
    assert_eq!(limits(&[("CUDA_MEM_RATIO", "2.00")]).physical_for(0, b""), None, "a part of nothing");
}

proptest! {
    #[test]
    fn hamis_plain_sizes_mean_what_they_mean_there(number in 1_u64..1 << 16, unit in 0_usize..4) {
        let text = std::format!("{number}{}", ["", "k", "m", "g"][unit]);
        let expected = number << (10 * unit);
        let limits = reading(&[("CUDA_DEVICE_MEMORY_LIMIT", &text)], None).limits;
        prop_assert_eq!(limits.memory_for(3, b""), (expected < SIZE_END).then_some(expected));
    }

    #[test]
    fn no_bytes_make_it_panic_and_every_error_has_a_line(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), KNOBS.len()),
        file in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
    ) {
        let env = |name: &str| {
            KNOBS.iter().position(|knob| name.starts_with(knob.name)).map(|at| values[at].as_slice())
        };
        let reading = read(&env, file.as_deref());
        let _path = region_path(&env);
        for message in messages(&reading) {
            prop_assert!(message.is_ascii() && !message.contains('\n') && message.contains("Write "));
        }
    }

    #[test]
    fn near_misses_never_panic(memory in "[0-9=.,GPUMIgkmtbiB% -]{0,40}", file in "(memory|cores|mode|#|=|[0-9GiB, \n]){0,20}") {
        let reading = reading(&[("GPUQUOTA_MEMORY", &memory), ("CUDA_DEVICE_SM_LIMIT", &memory)], Some(&file));
        prop_assert!(reading.problems.iter().count() <= MAX_PROBLEMS);
        for entry in reading.limits.memory.iter() {
            prop_assert!((1..SIZE_END).contains(&entry.value));
        }
        for entry in reading.limits.cores.iter() {
            prop_assert!((1..=100).contains(&entry.value));
        }
    }
}
