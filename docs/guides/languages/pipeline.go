// A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:
//
//	pipeline consumer one & pipeline consumer two & pipeline producer
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	control = ".promisefs/"
	own     = control + "own/demo-list"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// What waits, waits in open(2); other goroutines go on meanwhile.
func tryGet(path string) (string, error) {
	text, err := os.ReadFile(path)
	return strings.TrimSpace(string(text)), err
}

func get(path string) string {
	text, err := tryGet(path)
	check(err)
	return text
}

func put(path, text string) {
	check(os.WriteFile(path, []byte(text), 0o666))
}

func consumer(me string) {
	// A future that nobody has declared: the open waits until the key is published. Whoever comes late need not wait.
	sum := 0
	for _, line := range strings.Fields(get(control + "await/demo/numbers")) {
		number, err := strconv.Atoi(line)
		check(err)
		sum += number
	}
	fmt.Printf("%s: the sum is %d\n", me, sum)

	// A one-time object: the open takes it, of all who try one gets it. The others find no such file.
	ticket, err := tryGet(control + "once/demo/ticket")
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Printf("%s: the ticket is gone\n", me)
	} else {
		check(err)
		fmt.Printf("%s: the ticket is mine: %s\n", me, ticket)
	}

	// A borrow is a hard link. As long as it is there nobody can write the list or evict it.
	ref := control + "ref/demo-" + me
	check(os.Link(own, ref))
	fmt.Printf("%s: scratch says: %s\n", me, get("demo/scratch/note"))
	put("demo/answer-"+me, fmt.Sprintln(sum)) // keeps the promise that the producer waits for

	// A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over.
	_, err = tryGet("demo/scratch/never")
	if !errors.Is(err, syscall.ECANCELED) && !errors.Is(err, fs.ErrNotExist) {
		log.Fatal("demo/scratch/never: should have been cancelled: ", err)
	}
	if _, err = tryGet("demo/scratch/note"); !errors.Is(err, fs.ErrNotExist) {
		log.Fatal("demo/scratch/note: should be gone: ", err)
	}
	fmt.Printf("%s: scratch is gone\n", me)

	fmt.Printf("%s: the list is %s\n", me, get(ref)) // a writer is in line by now, and does not get in
	check(os.Remove(ref))                            // until the last borrow is dropped
}

func producer() {
	put(own, "1 2 3\n") // an object whose owner is a handle, not a key
	check(os.Mkdir("demo/scratch", 0o777))
	put("demo/scratch/note", "not for long\n")
	for _, name := range []string{"scratch/never", "answer-one", "answer-two"} {
		put(control+"future/demo/"+name, "") // an empty file declares a future
	}
	put("demo/ticket", "admit one\n")
	var numbers strings.Builder
	for number := 1; number <= 100; number++ {
		fmt.Fprintln(&numbers, number)
	}
	put("demo/numbers", numbers.String()) // published, whole, when it is closed: this wakes the consumers

	for _, name := range []string{"one", "two"} {
		fmt.Printf("producer: %s answers %s\n", name, get("demo/answer-"+name)) // waits for the future
	}

	// To write the list takes the only borrow there is. Both consumers borrow it now, so get in line.
	check(os.Link(own, control+"await-mut/demo-writer"))
	put(control+"attributes/lease/demo/scratch/.dir", "100ms\n") // the directory goes by itself, with what is in it
	put(control+"mut/demo-writer", "1 2 3 4\n")                  // the open waits for the turn
	check(os.Remove(control + "mut/demo-writer"))
	fmt.Printf("producer: the list is %s\n", get(own))
	check(os.Remove(own)) // nobody borrows it: evicted
}

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "producer":
		producer()
	case len(os.Args) == 3 && os.Args[1] == "consumer":
		consumer(os.Args[2])
	default:
		log.Fatal("usage: pipeline producer | consumer NAME")
	}
}
