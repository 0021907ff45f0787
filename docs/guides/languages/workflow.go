// usage: workflow MOUNTPOINT declare|consume N|produce|write
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"strings"
	"syscall"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// os.Open waits in a thread of its own; goroutines go on. It does not use O_NONBLOCK for regular files.
func read(path string) string {
	data, err := os.ReadFile(path)
	check(err)
	return string(data)
}

func write(path, text string) {
	check(os.WriteFile(path, []byte(text), 0o666))
}

func consume(number string) {
	sum := 0
	for _, word := range strings.Fields(read("guide/numbers")) { // waits until it is written
		n := 0
		fmt.Sscan(word, &n)
		sum += n
	}
	token, err := os.ReadFile(".promisefs/once/guide/token") // one of all consumers gets it
	if errors.Is(err, fs.ErrNotExist) {
		token = []byte("-")
	} else {
		check(err)
	}
	handle := ".promisefs/ref/guide-" + number
	check(os.Link(".promisefs/own/guide-list", handle)) // nobody writes it now
	list := read(handle)
	check(os.Remove(handle))
	write("guide/result-"+number, fmt.Sprintf("%d %s %s\n", sum, token, list))
}

func produce() {
	write("guide/token", "token")
	write(".promisefs/own/guide-list", "1 2 3") // an object without a key
	write("guide/scratch", "scratch")
	write(".promisefs/attributes/lease/guide/scratch", "500ms\n")
	write("guide/numbers", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n") // wakes the consumers
}

func writeList() {
	check(os.Link(".promisefs/own/guide-list", ".promisefs/mut/guide")) // nobody else reads or writes it now
	if _, err := os.ReadFile(".promisefs/own/guide-list"); !errors.Is(err, syscall.EBUSY) {
		log.Fatal("expected EBUSY: ", err)
	}
	write(".promisefs/mut/guide", "1 2 3 4")
	check(os.Remove(".promisefs/mut/guide"))
	check(os.Rename(".promisefs/own/guide-list", "guide/list"))
}

func main() {
	check(os.Chdir(os.Args[1]))
	switch os.Args[2] {
	case "declare":
		write(".promisefs/future/guide/numbers", "")
	case "consume":
		consume(os.Args[3])
	case "produce":
		produce()
	case "write":
		writeList()
	}
}
