//! Packs one series' samples, and unpacks them.
//!
//! [`SeriesState`] turns samples one at a time into codes, bytes that build on the sample before; segments carry
//! them and heads keep them as they are. [`Decoder`] reads them back. Both rest on [`decimal`], which finds the
//! integer behind a float.
//!
//! [`PageWriter`] packs the finished samples of up to 256 series into one compressed page of a block; [`Page`] reads them.

pub mod decimal;
mod frame;
mod page;
mod stream;
mod values;

pub use frame::{FrameError, FrameWriter, open_frame};
pub use page::{PAGE_SERIES_MAX, Page, PageError, PageStats, PageWriter, SERIES_SAMPLES_MAX};
pub use stream::{
    CodeShape, Decoder, SeriesState, histogram_in, measure_code, measure_plain_code, measure_varint, put_repeat,
};
