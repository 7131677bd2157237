use super::*;

fn sample(pid: u32, time_stamp: u64, percent: u32) -> nvmlProcessUtilizationSample_t {
    nvmlProcessUtilizationSample_t {
        pid,
        timeStamp: time_stamp,
        smUtil: percent,
        memUtil: percent / 2,
        encUtil: 0,
        decUtil: 0,
    }
}

fn processors(samples: &[nvmlProcessUtilizationSample_t], pids: &[u32]) -> Option<u32> {
    let total = sum(&|pid| find(samples, 100, pid), &mut |add| pids.iter().for_each(|pid| add(*pid)));
    total[Engine::Processors as usize]
}

#[test]
fn the_newest_record_of_each_process_counts_once() {
    let samples = [sample(7, 150, 10), sample(8, 150, 30), sample(7, 200, 20), sample(9, 200, 40)];
    assert_eq!(processors(&samples, &[7, 8]), Some(50));
    assert_eq!(processors(&samples, &[1]), Some(0), "a process that did nothing has no record");
    assert_eq!(processors(&samples, &[]), Some(0));
}

#[test]
fn old_records_do_not_count_and_figures_above_all_are_unknown() {
    assert_eq!(processors(&[sample(7, 100, 50)], &[7]), Some(0));
    assert_eq!(processors(&[sample(7, 101, 4_000_000)], &[7]), None);
}

#[test]
fn the_older_layout_knows_nothing_of_jpeg() {
    let total = sum(&|pid| find(&[sample(7, 200, 20)], 100, pid), &mut |add| add(7));
    assert_eq!(total, [Some(20), Some(10), Some(0), Some(0), None, None]);
}
