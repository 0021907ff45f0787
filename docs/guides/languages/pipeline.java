// A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:
//	java pipeline.java consumer one & java pipeline.java consumer two & java pipeline.java producer
import java.io.IOException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

class Pipeline {
	static final Path CONTROL = Path.of(".promisefs"), DEMO = Path.of("demo");
	static final Path OWN = CONTROL.resolve("own/demo-list");

	/** What waits, waits in open(2), and with it the thread. */
	static String get(Path path) throws IOException {
		return Files.readString(path).stripTrailing();
	}

	static void put(Path path, String text) throws IOException {
		Files.writeString(path, text);
	}

	static void consumer(String me) throws IOException {
		// A future that nobody has declared: the open waits until the key is published. Who comes late need not wait.
		int sum = get(CONTROL.resolve("await/demo/numbers")).lines().mapToInt(Integer::parseInt).sum();
		System.out.println(me + ": the sum is " + sum);

		// A one-time object: the open takes it, of all who try one gets it. The others find no such file.
		try {
			System.out.println(me + ": the ticket is mine: " + get(CONTROL.resolve("once/demo/ticket")));
		} catch (NoSuchFileException e) {
			System.out.println(me + ": the ticket is gone");
		}

		// A borrow is a hard link. As long as it is there nobody can write the list or evict it.
		Path ref = CONTROL.resolve("ref/demo-" + me);
		Files.createLink(ref, OWN);
		System.out.println(me + ": scratch says: " + get(DEMO.resolve("scratch/note")));
		put(DEMO.resolve("answer-" + me), sum + "\n"); // keeps the promise that the producer waits for

		// A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over.
		try {
			throw new IllegalStateException("somebody has written " + get(DEMO.resolve("scratch/never")));
		} catch (NoSuchFileException e) {
			// came too late to wait
		} catch (FileSystemException e) { // Java does not tell ECANCELED from others but by the words
			if (!"Operation canceled".equals(e.getReason()))
				throw e;
		}
		try {
			throw new IllegalStateException("it is still there: " + get(DEMO.resolve("scratch/note")));
		} catch (NoSuchFileException e) {
			System.out.println(me + ": scratch is gone");
		}

		System.out.println(me + ": the list is " + get(ref)); // a writer is in line by now, and does not get in
		Files.delete(ref); // until the last borrow is dropped
	}

	static void producer() throws IOException {
		put(OWN, "1 2 3\n"); // an object whose owner is a handle, not a key
		Files.createDirectory(DEMO.resolve("scratch"));
		put(DEMO.resolve("scratch/note"), "not for long\n");
		for (String name : List.of("scratch/never", "answer-one", "answer-two"))
			Files.createFile(CONTROL.resolve("future/demo").resolve(name)); // declares a future
		put(DEMO.resolve("ticket"), "admit one\n");
		// Published, whole, when it is closed: this wakes the consumers.
		put(DEMO.resolve("numbers"), IntStream.rangeClosed(1, 100).mapToObj(n -> n + "\n").collect(Collectors.joining()));

		for (String name : List.of("one", "two")) // waits for the future
			System.out.println("producer: " + name + " answers " + get(DEMO.resolve("answer-" + name)));

		// To write the list takes the only borrow there is. Both consumers borrow it now, so get in line.
		Files.createLink(CONTROL.resolve("await-mut/demo-writer"), OWN);
		put(CONTROL.resolve("attributes/lease/demo/scratch/.dir"), "100ms\n"); // the directory goes by itself
		Path mut = CONTROL.resolve("mut/demo-writer");
		put(mut, "1 2 3 4\n"); // the open waits for the turn
		Files.delete(mut);
		System.out.println("producer: the list is " + get(OWN));
		Files.delete(OWN); // nobody borrows it: evicted
	}

	public static void main(String[] args) throws IOException {
		if (args[0].equals("producer"))
			producer();
		else
			consumer(args[1]);
	}
}
