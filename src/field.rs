//! HTTP field codecs: pure functions from field values to types and back.
