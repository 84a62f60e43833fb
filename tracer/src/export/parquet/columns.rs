//! The columns of a table, and how rows become columns.
//!
//! Parquet stores the values of a column, and for each position how deep it is filled (definition level) and which list
//! it continues (repetition level).

use std::{io::Write, net::SocketAddr};

use parquet::{
    data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type},
    errors::{ParquetError, Result},
    file::writer::SerializedRowGroupWriter,
};

use tracer_common::tuple::Tuple;

use super::row::Row;
use crate::{
    diagnose::{Attempt, evidence::Evidence},
    finding::clock::milliseconds,
    report::path::PathStep,
};

/// Schema 1's flow object as a table, in the order of [`write`].
pub(super) const SCHEMA: &str = "
message flow {
  required int32 run (INTEGER(32,false));
  required binary host (STRING);
  required int64 id (INTEGER(64,false));
  required int32 told (INTEGER(32,false));
  required int64 start (TIMESTAMP(NANOS,true));
  optional binary node_name (STRING);
  optional binary boot_id (STRING);
  optional int32 netns (INTEGER(32,false));
  required binary client_ip (STRING);
  required int32 client_port (INTEGER(16,false));
  required binary node_ip (STRING);
  required int32 node_port (INTEGER(16,false));
  required int32 syn_seq (INTEGER(32,false));
  optional binary dnat_source_ip (STRING);
  optional int32 dnat_source_port (INTEGER(16,false));
  optional binary dnat_destination_ip (STRING);
  optional int32 dnat_destination_port (INTEGER(16,false));
  optional binary snat_source_ip (STRING);
  optional int32 snat_source_port (INTEGER(16,false));
  optional binary snat_destination_ip (STRING);
  optional int32 snat_destination_port (INTEGER(16,false));
  optional binary service (STRING);
  optional binary dataplane (STRING);
  optional binary backend_ip (STRING);
  optional int32 backend_port (INTEGER(16,false));
  optional binary backend_name (STRING);
  required binary fate (STRING);
  optional binary cause (STRING);
  optional binary inner_cause (STRING);
  required binary explanation (STRING);
  optional binary advice (STRING);
  required int32 syns (INTEGER(32,false));
  required int32 synacks (INTEGER(32,false));
  optional double connect_ms;
  optional double stall_ms;
  required double lost_ms;
  required group attempts (LIST) {
    repeated group list {
      required group element {
        required int32 n (INTEGER(32,false));
        required double t_ms;
        optional binary cause (STRING);
        optional binary inner_cause (STRING);
        required binary explanation (STRING);
        required double lost_ms;
      }
    }
  }
  required group evidence (LIST) {
    repeated group list {
      required group element {
        required binary key (STRING);
        required binary what (STRING);
        required binary value (STRING);
        required binary hook (STRING);
      }
    }
  }
  required group path (LIST) {
    repeated group list {
      required group element {
        required double t_ms;
        required binary hook (STRING);
        optional binary dev (STRING);
        optional int32 netns (INTEGER(32,false));
        required int32 cpu (INTEGER(16,false));
        optional binary verdict (STRING);
        required binary note (STRING);
      }
    }
  }
}
";

/// Writes rows of one host and boot as a row group.
pub(super) fn write<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    (host, boot_id): (&str, &str),
    rows: &[Row],
) -> Result<()> {
    let known = |name: &str| (!name.is_empty()).then(|| text(name));
    let mut to = Columns { group, rows };
    to.each::<Int32Type>(|row| row.run.cast_signed())?;
    to.each::<ByteArrayType>(|_| text(host))?;
    to.each::<Int64Type>(|row| row.id.cast_signed())?;
    to.each::<Int32Type>(|row| row.report.cast_signed())?;
    to.each::<Int64Type>(|row| row.start_ns)?;
    to.maybe::<ByteArrayType>(|_| known(host))?;
    to.maybe::<ByteArrayType>(|_| known(boot_id))?;
    to.maybe::<Int32Type>(|row| row.netns.map(u32::cast_signed))?;
    to.each::<ByteArrayType>(|row| ip(row.client))?;
    to.each::<Int32Type>(|row| port(row.client))?;
    to.each::<ByteArrayType>(|row| ip(row.node))?;
    to.each::<Int32Type>(|row| port(row.node))?;
    to.each::<Int32Type>(|row| row.syn_seq.cast_signed())?;
    to.tuple(|row| row.dnat)?;
    to.tuple(|row| row.snat)?;
    to.maybe::<ByteArrayType>(|row| row.service.as_deref().map(text))?;
    to.maybe::<ByteArrayType>(|row| row.diagnosis.dataplane.map(|dataplane| text(dataplane.name())))?;
    to.maybe::<ByteArrayType>(|row| row.backend.map(ip))?;
    to.maybe::<Int32Type>(|row| row.backend.map(port))?;
    // The names of pods are not known yet, as in the JSON lines.
    to.maybe::<ByteArrayType>(|_| None)?;
    to.each::<ByteArrayType>(|row| text(row.fate.name()))?;
    to.maybe::<ByteArrayType>(|row| row.diagnosis.cause.map(|cause| text(cause.name())))?;
    to.maybe::<ByteArrayType>(|row| row.diagnosis.inner.map(|cause| text(cause.name())))?;
    to.each::<ByteArrayType>(|row| text(&row.diagnosis.explanation))?;
    to.maybe::<ByteArrayType>(|row| row.diagnosis.advice.as_deref().map(text))?;
    to.each::<Int32Type>(|row| row.syns.cast_signed())?;
    to.each::<Int32Type>(|row| row.synacks.cast_signed())?;
    to.maybe::<DoubleType>(|row| row.connect_ms)?;
    to.maybe::<DoubleType>(|row| row.stall_ms)?;
    to.each::<DoubleType>(|row| milliseconds(row.diagnosis.lost_ns()))?;
    // No flow has this many.
    to.attempt::<Int32Type>(1, |attempt| {
        Some(i32::try_from(attempt.number).unwrap_or(i32::MAX))
    })?;
    to.attempt::<DoubleType>(1, |attempt| Some(milliseconds(attempt.t_ns)))?;
    to.attempt::<ByteArrayType>(2, |attempt| attempt.cause.map(|cause| text(cause.name())))?;
    to.attempt::<ByteArrayType>(2, |attempt| attempt.inner.map(|cause| text(cause.name())))?;
    to.attempt::<ByteArrayType>(1, |attempt| Some(text(&attempt.explanation)))?;
    to.attempt::<DoubleType>(1, |attempt| Some(milliseconds(attempt.lost_ns)))?;
    to.evidence(|fact| fact.key.name())?;
    to.evidence(|fact| fact.label())?;
    to.evidence(|fact| &fact.value)?;
    to.evidence(|fact| &fact.source)?;
    to.step::<DoubleType>(|step| step.t_ms)?;
    to.step::<ByteArrayType>(|step| text(step.hook))?;
    to.maybe_step::<ByteArrayType>(|step| step.dev.as_deref().map(text))?;
    to.maybe_step::<Int32Type>(|step| step.netns.map(u32::cast_signed))?;
    to.step::<Int32Type>(|step| step.cpu.into())?;
    to.maybe_step::<ByteArrayType>(|step| step.verdict.as_deref().map(text))?;
    to.step::<ByteArrayType>(|step| text(&step.note))
}

fn text(text: &str) -> ByteArray {
    text.into()
}

fn ip(address: SocketAddr) -> ByteArray {
    text(&address.ip().to_string())
}

fn port(address: SocketAddr) -> i32 {
    address.port().into()
}

/// A column of a row group.
struct Column<T> {
    values: Vec<T>,
    definitions: Option<Vec<i16>>,
    repetitions: Option<Vec<i16>>,
}

/// Writes the columns of a row group one after the other.
struct Columns<'a, 'group, W: Write> {
    group: &'a mut SerializedRowGroupWriter<'group, W>,
    rows: &'a [Row],
}

impl<W: Write + Send> Columns<'_, '_, W> {
    fn put<T: DataType>(&mut self, column: &Column<T::T>) -> Result<()> {
        let writer = self.group.next_column()?;
        let mut writer =
            writer.ok_or_else(|| ParquetError::General("the schema has no such column".to_owned()))?;
        writer.typed::<T>().write_batch(
            &column.values,
            column.definitions.as_deref(),
            column.repetitions.as_deref(),
        )?;
        writer.close()
    }

    /// A value in each row.
    fn each<T: DataType>(&mut self, of: impl Fn(&Row) -> T::T) -> Result<()> {
        self.put::<T>(&Column {
            values: self.rows.iter().map(of).collect(),
            definitions: None,
            repetitions: None,
        })
    }

    /// A value in some rows.
    fn maybe<T: DataType>(&mut self, of: impl Fn(&Row) -> Option<T::T>) -> Result<()> {
        let mut values = Vec::new();
        let level = |row| {
            let value = of(row);
            let level = i16::from(value.is_some());
            values.extend(value);
            level
        };
        let definitions = Some(self.rows.iter().map(level).collect());
        self.put::<T>(&Column {
            values,
            definitions,
            repetitions: None,
        })
    }

    /// Source and destination of a packet.
    fn tuple(&mut self, of: impl Fn(&Row) -> Option<Tuple>) -> Result<()> {
        for end in [Tuple::source, Tuple::destination] {
            self.maybe::<ByteArrayType>(|row| of(row).map(|tuple| ip(end(&tuple))))?;
            self.maybe::<Int32Type>(|row| of(row).map(|tuple| port(end(&tuple))))?;
        }
        Ok(())
    }

    fn attempt<T: DataType>(&mut self, full: i16, of: impl Fn(&Attempt) -> Option<T::T>) -> Result<()> {
        self.list::<T>(full, |row| row.diagnosis.attempts.iter().map(&of).collect())
    }

    fn evidence(&mut self, of: impl Fn(&Evidence) -> &str) -> Result<()> {
        let list = |row: &'_ Row| -> Vec<Option<ByteArray>> {
            let facts = row.diagnosis.evidence.iter();
            facts.map(|fact| Some(text(of(fact)))).collect()
        };
        self.list::<ByteArrayType>(1, list)
    }

    fn step<T: DataType>(&mut self, of: impl Fn(&PathStep) -> T::T) -> Result<()> {
        self.list::<T>(1, |row| row.path.iter().map(|step| Some(of(step))).collect())
    }

    fn maybe_step<T: DataType>(&mut self, of: impl Fn(&PathStep) -> Option<T::T>) -> Result<()> {
        self.list::<T>(2, |row| row.path.iter().map(&of).collect())
    }

    /// Values in the elements of a list; `full` is the definition level of a value that is present.
    fn list<T: DataType>(&mut self, full: i16, of: impl Fn(&Row) -> Vec<Option<T::T>>) -> Result<()> {
        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        for row in self.rows {
            let elements = of(row);
            if elements.is_empty() {
                definitions.push(0);
                repetitions.push(0);
            }
            for (index, element) in elements.into_iter().enumerate() {
                definitions.push(if element.is_some() { full } else { full - 1 });
                repetitions.push(i16::from(index > 0));
                values.extend(element);
            }
        }
        self.put::<T>(&Column {
            values,
            definitions: Some(definitions),
            repetitions: Some(repetitions),
        })
    }
}
