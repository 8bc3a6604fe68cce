//! The binary: see `weft --help`, and [`weft::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    weft::cli::main()
}
