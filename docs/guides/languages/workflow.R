# usage: Rscript workflow.R MOUNTPOINT declare|consume N|produce|write
words <- commandArgs(trailingOnly = TRUE)
setwd(words[1])
control <- ".promisefs"
text_of <- function(path) {
  connection <- file(path, raw = TRUE) # else it opens a file twice, first to see whether it is compressed
  on.exit(close(connection))
  paste(readLines(connection, warn = FALSE), collapse = "\n")
}
write_text <- function(path, text) cat(text, file = path)

switch(words[2],
  declare = write_text(file.path(control, "future/guide/numbers"), ""),
  consume = {
    sum <- sum(as.integer(readLines("guide/numbers"))) # waits until it is written
    token <- tryCatch(suppressWarnings(text_of(file.path(control, "once/guide/token"))), error = function(e) "-")
    handle <- file.path(control, paste0("ref/guide-", words[3])) # of all consumers one has got the token
    stopifnot(file.link(file.path(control, "own/guide-list"), handle)) # nobody writes it now
    list <- text_of(handle)
    stopifnot(file.remove(handle))
    write_text(paste0("guide/result-", words[3]), paste(sum, token, paste0(list, "\n")))
  },
  produce = {
    write_text("guide/token", "token")
    write_text(file.path(control, "own/guide-list"), "1 2 3") # an object without a key
    write_text("guide/scratch", "scratch")
    write_text(file.path(control, "attributes/lease/guide/scratch"), "500ms\n")
    write_text("guide/numbers", paste0(1:10, "\n", collapse = "")) # wakes the consumers
  },
  write = {
    owner <- file.path(control, "own/guide-list")
    handle <- file.path(control, "mut/guide")
    stopifnot(file.link(owner, handle)) # nobody else reads or writes it now
    refused <- tryCatch(suppressWarnings(text_of(owner)), error = function(e) NULL)
    stopifnot(is.null(refused))
    write_text(handle, "1 2 3 4")
    stopifnot(file.remove(handle), file.rename(owner, "guide/list"))
  }
)
