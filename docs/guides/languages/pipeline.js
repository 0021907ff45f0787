#!/usr/bin/env node
// A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:
//	pipeline.js consumer one & pipeline.js consumer two & pipeline.js producer
'use strict';
const { readFile, writeFile, link, mkdir, unlink } = require('node:fs/promises');

const control = '.promisefs';
const own = `${control}/own/demo-list`;

// fs/promises leaves the opens that wait to a pool of threads, so that everything else goes on meanwhile.
async function get(path) {
	return (await readFile(path, 'utf8')).trimEnd();
}

// The same, or null if it failed in one of these ways.
async function getUnless(path, ...codes) {
	try {
		return await get(path);
	} catch (error) {
		if (codes.includes(error.code))
			return null;
		throw error;
	}
}

async function consumer(me) {
	// A future that nobody has declared: the open waits until the key is published. Whoever comes late need not wait.
	const numbers = await get(`${control}/await/demo/numbers`);
	const sum = numbers.split('\n').reduce((total, line) => total + Number(line), 0);
	console.log(`${me}: the sum is ${sum}`);

	// A one-time object: the open takes it, of all who try one gets it. The others find no such file.
	const ticket = await getUnless(`${control}/once/demo/ticket`, 'ENOENT');
	console.log(ticket === null ? `${me}: the ticket is gone` : `${me}: the ticket is mine: ${ticket}`);

	// A borrow is a hard link. As long as it is there nobody can write the list or evict it.
	const ref = `${control}/ref/demo-${me}`;
	await link(own, ref);
	console.log(`${me}: scratch says: ${await get('demo/scratch/note')}`);
	await writeFile(`demo/answer-${me}`, `${sum}\n`); // keeps the promise that the producer waits for

	// A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over.
	if (await getUnless('demo/scratch/never', 'ECANCELED', 'ENOENT') !== null)
		throw new Error('demo/scratch/never: somebody has written it');
	if (await getUnless('demo/scratch/note', 'ENOENT') !== null)
		throw new Error('demo/scratch/note is still there');
	console.log(`${me}: scratch is gone`);

	console.log(`${me}: the list is ${await get(ref)}`); // a writer is in line by now, and does not get in
	await unlink(ref); // until the last borrow is dropped
}

async function producer() {
	await writeFile(own, '1 2 3\n'); // an object whose owner is a handle, not a key
	await mkdir('demo/scratch');
	await writeFile('demo/scratch/note', 'not for long\n');
	for (const name of ['scratch/never', 'answer-one', 'answer-two'])
		await writeFile(`${control}/future/demo/${name}`, ''); // declares a future
	await writeFile('demo/ticket', 'admit one\n');
	const numbers = Array.from({ length: 100 }, (_, i) => `${i + 1}\n`);
	await writeFile('demo/numbers', numbers.join('')); // published, whole, when it is closed: this wakes the consumers

	const names = ['one', 'two'];
	const answers = await Promise.all(names.map(name => get(`demo/answer-${name}`))); // waits for both futures
	names.forEach((name, i) => console.log(`producer: ${name} answers ${answers[i]}`));

	// To write the list takes the only borrow there is. Both consumers borrow it now, so get in line.
	await link(own, `${control}/await-mut/demo-writer`);
	await writeFile(`${control}/attributes/lease/demo/scratch/.dir`, '100ms\n'); // the directory goes by itself
	await writeFile(`${control}/mut/demo-writer`, '1 2 3 4\n'); // the open waits for the turn
	await unlink(`${control}/mut/demo-writer`);
	console.log(`producer: the list is ${await get(own)}`);
	await unlink(own); // nobody borrows it: evicted
}

const [role, name] = process.argv.slice(2);
// What nobody catches ends the program with a message and status 1.
if (role === 'producer')
	producer();
else
	consumer(name);
