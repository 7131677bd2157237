//! The agent's log on stderr: a line for people, or one JSON object a line.

use super::config::{LogFormat, Settings};
use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent};
use tracing_subscriber::registry::LookupSpan;

/// `gpuquota: warning: what happened`, as every other command writes it. Whoever collects the lines knows the time.
struct Plain;

impl<S: Subscriber + for<'l> LookupSpan<'l>, F: for<'w> FormatFields<'w> + 'static> FormatEvent<S, F>
    for Plain
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, F>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            Level::DEBUG => "debug: ",
            Level::TRACE => "trace: ",
        };
        write!(writer, "gpuquota: {level}")?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Begins to log for people, all but what is for developers.
pub fn plain() {
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    lines.log_internal_errors(false).event_format(Plain).init();
}

/// Begins to log.
pub fn begin(settings: &Settings) {
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    // Where nobody reads the log any more, a complaint about that would end the agent.
    let lines = lines.log_internal_errors(false);
    let lines = lines.with_max_level(settings.log_level);
    match settings.log_format {
        LogFormat::Text => lines.event_format(Plain).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).init(),
    }
}
