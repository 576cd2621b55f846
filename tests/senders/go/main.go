// Sends each line of standard input as a document, by the bulk indexer of the official client, and prints what it counted.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"log"
	"os"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/elastic/go-elasticsearch/v8"
	"github.com/elastic/go-elasticsearch/v8/esutil"
)

var number = regexp.MustCompile(`event (\d+)`)

func main() {
	client, err := elasticsearch.NewClient(elasticsearch.Config{
		Addresses:     []string{os.Args[1]},
		Username:      "logs",
		Password:      os.Args[2],
		MaxRetries:    1000,
		RetryBackoff:  func(int) time.Duration { return 200 * time.Millisecond },
		RetryOnStatus: []int{429, 502, 503, 504},
	})
	if err != nil {
		log.Fatal(err)
	}
	indexer, err := esutil.NewBulkIndexer(esutil.BulkIndexerConfig{
		Client: client, Index: "logs", NumWorkers: 2, FlushBytes: 20_000, FlushInterval: 200 * time.Millisecond,
	})
	if err != nil {
		log.Fatal(err)
	}
	var failed atomic.Int64
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		line := bytes.Clone(lines.Bytes())
		err := indexer.Add(context.Background(), esutil.BulkIndexerItem{
			Action:     "create",
			DocumentID: string(number.FindSubmatch(line)[1]),
			Body:       bytes.NewReader(line),
			OnFailure: func(context.Context, esutil.BulkIndexerItem, esutil.BulkIndexerResponseItem, error) {
				failed.Add(1)
			},
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := indexer.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	stats := indexer.Stats()
	json.NewEncoder(os.Stdout).Encode(map[string]int64{"sent": int64(stats.NumFlushed), "failed": failed.Load()})
}
