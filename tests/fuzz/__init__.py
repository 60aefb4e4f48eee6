"""Damaged and hostile files, made by the million, and what the decoders make of them.

mutations   what can happen to bytes
edits       what can be done to the parts of a file
artifacts   the small files that are damaged, one mode or more in each
mutants     the mutant of a number, and what decoding it may come to
campaign    any number of mutants in child processes; `python -m tests.fuzz.campaign`
corpus      real payloads as inputs of fuzz_core.c
core        the C core under sanitizers; `python -m tests.fuzz.core`
"""
