//! What an operator gives to weft and sees of it: files, flags, metrics, pages, log lines. Exact texts.

mod net_conf;
