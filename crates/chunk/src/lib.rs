//! Packs one series' samples, and unpacks them.
//!
//! [`SeriesState`] turns samples one at a time into codes, bytes that build on the sample before; segments carry
//! them and heads keep them as they are. [`Decoder`] reads them back. Both rest on [`decimal`], which finds the
//! integer behind a float.

pub mod decimal;
mod stream;

pub use stream::{
    CodeShape, Decoder, SeriesState, histogram_in, measure_code, measure_plain_code, measure_varint, put_repeat,
};
