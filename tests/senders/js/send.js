// Sends each line of standard input as a document, by the bulk helper of the official client, and prints what it counted.
const { Client } = require('@elastic/elasticsearch')
const readline = require('node:readline')

const [url, key] = process.argv.slice(2)
const client = new Client({
  node: url,
  auth: { username: 'logs', password: key },
  maxRetries: 1000,
  retryBackoff: () => 0.2,
  resurrectStrategy: 'none'
})

async function main () {
  const stats = await client.helpers.bulk({
    datasource: readline.createInterface({ input: process.stdin }),
    onDocument: line => ({ create: { _index: 'logs', _id: /event (\d+)/.exec(line)[1] } }),
    flushBytes: 20_000,
    flushInterval: 200
  })
  console.log(JSON.stringify({ sent: stats.successful, failed: stats.failed }))
}

main()
