#!/usr/bin/env Rscript
# A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:
#	pipeline.R consumer one & pipeline.R consumer two & pipeline.R producer
options(warn = 2) # a system call that fails is only a warning in R: make it an error, with what the system says
invisible(Sys.setlocale("LC_MESSAGES", "C"))

# What waits, waits in open(2). "rb", because for "r" R opens a file twice, the first time to see whether it is
# compressed; who takes a one-time object that way has nothing left to read.
get_text <- function(path) {
	file <- file(path, "rb")
	on.exit(close(file))
	readLines(file)
}

# The same, or NULL if it failed with one of these messages.
get_unless <- function(path, messages) {
	tryCatch(get_text(path), error = function(problem) {
		if (!grepl(messages, conditionMessage(problem))) stop(problem)
		NULL
	})
}

say <- function(...) cat(..., "\n", sep = "")

consumer <- function(me) {
	own <- ".promisefs/own/demo-list"
	ref <- paste0(".promisefs/ref/demo-", me)

	# A future that nobody has declared: the open waits until the key is published. Whoever comes late need not wait.
	total <- sum(as.integer(get_text(".promisefs/await/demo/numbers")))
	say(me, ": the sum is ", total)

	# A one-time object: the open takes it, of all who try one gets it. The others find no such file.
	ticket <- get_unless(".promisefs/once/demo/ticket", "No such file")
	if (is.null(ticket)) say(me, ": the ticket is gone") else say(me, ": the ticket is mine: ", ticket)

	# A borrow is a hard link. As long as it is there nobody can write the list or evict it.
	stopifnot(file.link(own, ref))
	say(me, ": scratch says: ", get_text("demo/scratch/note"))
	writeLines(as.character(total), paste0("demo/answer-", me)) # keeps the promise that the producer waits for

	# A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over.
	stopifnot(is.null(get_unless("demo/scratch/never", "Operation canceled|No such file")))
	stopifnot(is.null(get_unless("demo/scratch/note", "No such file")))
	say(me, ": scratch is gone")

	say(me, ": the list is ", get_text(ref)) # a writer is in line by now, and does not get in
	stopifnot(file.remove(ref)) # until the last borrow is dropped
}

producer <- function() {
	own <- ".promisefs/own/demo-list"
	mut <- ".promisefs/mut/demo-writer"

	writeLines("1 2 3", own) # an object whose owner is a handle, not a key
	stopifnot(dir.create("demo/scratch"))
	writeLines("not for long", "demo/scratch/note")
	for (name in c("scratch/never", "answer-one", "answer-two"))
		stopifnot(file.create(paste0(".promisefs/future/demo/", name))) # declares a future
	writeLines("admit one", "demo/ticket")
	writeLines(as.character(1:100), "demo/numbers") # published, whole, when it is closed: this wakes the consumers

	for (name in c("one", "two"))
		say("producer: ", name, " answers ", get_text(paste0("demo/answer-", name))) # waits for the future

	# To write the list takes the only borrow there is. Both consumers borrow it now, so get in line.
	stopifnot(file.link(own, ".promisefs/await-mut/demo-writer"))
	writeLines("100ms", ".promisefs/attributes/lease/demo/scratch/.dir") # the directory goes by itself
	writeLines("1 2 3 4", mut) # the open waits for the turn
	stopifnot(file.remove(mut))
	say("producer: the list is ", get_text(own))
	stopifnot(file.remove(own)) # nobody borrows it: evicted
}

arguments <- commandArgs(trailingOnly = TRUE)
if (arguments[1] == "producer") producer() else consumer(arguments[2])
